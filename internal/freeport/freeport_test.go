package freeport_test

import (
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/freeport"
)

// With its own Close, some are still listened on.
func TestAPortThatWasClosedIsFree(t *testing.T) {
	var forks sync.WaitGroup
	t.Cleanup(forks.Wait)
	for range 4 {
		forks.Go(func() {
			for t.Context().Err() == nil { // canceled before the cleanup
				_ = exec.Command("true").Run()
			}
		})
	}
	for range 300 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		address := listener.Addr().String()
		require.NoError(t, freeport.Close(listener))
		again, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = again.Close()
		}
		require.Error(t, err)
	}
}
