// Package proxy asks Go module proxies which versions of a module there are, the way the go command does: it walks the
// list that GOPROXY is, keeps private modules to itself, and speaks the module proxy protocol
// (https://go.dev/ref/mod#goproxy-protocol) over HTTP and on a file system.
//
// It downloads no source code, and does not ask version control systems: where the list comes to "direct", it says so
// and stops.
package proxy
