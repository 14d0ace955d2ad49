//go:build unix

package freeport

import (
	"net"
	"syscall"
)

// shutDown ends the listening itself, however many processes have the socket open.
func shutDown(listener net.Listener) {
	socket, ok := listener.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
}
