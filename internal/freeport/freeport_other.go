//go:build !unix

package freeport

import "net"

func shutDown(net.Listener) {}
