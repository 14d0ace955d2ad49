// Package testport gives tests ports that nobody else takes.
package testport

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/chariot-giving/delta/internal/flock"
)

// The ports lie below those that systems give to whoever listens on port 0 or connects: from 32768 on Linux, and from 49152
// elsewhere. A port that was chosen by listening on 0 and closing again could be given to any other process before the server
// that it is for listens there, and again each time that server is restarted.
const first, last = 20_000, 29_999

// Reserve returns a port of 127.0.0.1 on which nobody listens. Until the test ends, no other call returns it, not even in another
// process.
func Reserve(tb testing.TB) int {
	tb.Helper()
	return reserve(tb, filepath.Join(os.TempDir(), fmt.Sprintf("delta-testports-%d", os.Geteuid())))
}

// reserve notes what is taken in a folder.
func reserve(tb testing.TB, dir string) int {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatalf("testport: %v", err)
	}
	start := os.Getpid() * 37 // processes begin apart, so that they rarely meet
	for i := range last - first + 1 {
		port := first + (start+i)%(last-first+1)
		lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			tb.Fatalf("testport: %v", err)
		}
		if got, err := flock.Try(lock); err != nil {
			tb.Fatalf("testport: locking %s: %v", lock.Name(), err)
		} else if got && free(port) {
			tb.Cleanup(func() { _ = lock.Close() }) // the file stays: removing it could break the lock of another process
			return port
		}
		_ = lock.Close()
	}
	tb.Fatalf("testport: there is no free port from %d to %d", first, last)
	return 0
}

func free(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return err == nil && listener.Close() == nil
}
