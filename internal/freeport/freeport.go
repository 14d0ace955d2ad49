// Package freeport closes listeners so that their ports are free.
package freeport

import "net"

// Close closes a listener. When it returns, nobody listens on the port, and it can be listened on again. The listener's own Close leaves the port
// in use for a moment if a process is being started: until that executes its program, it has all sockets of this one open.
//
// This holds on Linux. Elsewhere a socket that listens may refuse to be shut down, and Close does what the listener's does.
func Close(listener net.Listener) error {
	shutDown(listener)
	return listener.Close()
}
