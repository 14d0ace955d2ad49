//go:build !unix

package deltatest

import (
	"errors"
	"net"
)

// On these systems deltatest works with servers that already run.
func spawn(string) (int, error) {
	return 0, errors.New("servers can be started on Linux, macOS and other Unix systems only: " +
		"here, set DELTA_DATABASE_URL and TEMPORAL_ADDRESS")
}

func reap(int) bool { return true }

func isOpen(*net.UnixConn) bool { return true }

func private(string) bool { return true }
