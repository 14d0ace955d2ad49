// Package testport reserves ports for tests.
package testport

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/chariot-giving/delta/internal/flock"
	"github.com/chariot-giving/delta/internal/freeport"
)

// The ports lie below the ephemeral ports of the system, which begin at 32768 on Linux and at 49152 elsewhere. Otherwise the system could give the
// port to another process before the server of the test listens on it, and again whenever that server is restarted.
const first, last = 20_000, 29_999

// Reserve returns a free port of 127.0.0.1. Until the test ends, no other call returns it, not even in another process.
func Reserve(tb testing.TB) int {
	tb.Helper()
	return reservePort(tb, filepath.Join(os.TempDir(), fmt.Sprintf("delta-testports-%d", os.Geteuid())))
}

// reservePort locks a file for each reserved port in a folder.
func reservePort(tb testing.TB, dir string) int {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatalf("testport: %v", err)
	}
	start := os.Getpid() * 37 // processes begin at different ports, so that they rarely collide
	for i := range last - first + 1 {
		port := first + (start+i)%(last-first+1)
		lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			tb.Fatalf("testport: %v", err)
		}
		if got, err := flock.Try(lock); err != nil {
			tb.Fatalf("testport: locking %s: %v", lock.Name(), err)
		} else if got && isFree(port) {
			tb.Cleanup(func() { _ = flock.Release(lock) }) // the file stays: removing it could break the lock of another process
			return port
		}
		_ = flock.Release(lock)
	}
	tb.Fatalf("testport: there is no free port from %d to %d", first, last)
	return 0
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return err == nil && freeport.Close(listener) == nil
}
