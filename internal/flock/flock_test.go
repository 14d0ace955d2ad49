//go:build unix

package flock_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/flock"
)

// If the file is only closed, some locks are still held.
func TestAReleasedLockCanBeTaken(t *testing.T) {
	var forks sync.WaitGroup
	t.Cleanup(forks.Wait)
	for range 4 {
		forks.Go(func() {
			for t.Context().Err() == nil { // canceled before the cleanup
				_ = exec.Command("true").Run()
			}
		})
	}
	path := filepath.Join(t.TempDir(), "lock")
	for range 300 {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		require.NoError(t, err)
		got, err := flock.Try(file)
		require.NoError(t, err)
		require.True(t, got)
		require.NoError(t, flock.Release(file))
	}
}
