//go:build !unix

package deltatest

import (
	"errors"
	"net"
)

// On other systems, deltatest works with external servers only.
func spawnSupervisor(string) (int, error) {
	return 0, errors.New("servers can be started on Linux, macOS and other Unix systems only: " +
		"here, set DELTA_DATABASE_URL and TEMPORAL_ADDRESS")
}

func hasExited(int) bool { return true }

func isOpen(*net.UnixConn) bool { return true }

func isPrivate(string) bool { return true }
