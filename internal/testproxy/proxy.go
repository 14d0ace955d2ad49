// Package testproxy is a proxy between a client and a server in tests, which simulates failures of a network.
package testproxy

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxy forwards connections. Its methods may be called concurrently.
type Proxy struct {
	// Address is the address for clients: Host and Port.
	Address string
	Host    string
	Port    uint16

	listener net.Listener
	server   string
	work     sync.WaitGroup
	mu       sync.Mutex
	links    []*link
	refusing bool
	silent   bool
}

type link struct {
	client, server net.Conn
	frozen         chan struct{}
	freeze         func()
}

// New starts a proxy to a server, which runs until the test ends.
func New(tb testing.TB, server string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	host, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(tb, err)
	number, err := strconv.ParseUint(port, 10, 16)
	require.NoError(tb, err)
	p := &Proxy{Address: listener.Addr().String(), Host: host, Port: uint16(number), listener: listener, server: server}
	p.work.Go(p.acceptLinks)
	tb.Cleanup(func() {
		_ = listener.Close()
		p.Refuse()
		p.work.Wait()
	})
	return p
}

func (p *Proxy) acceptLinks() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		frozen := make(chan struct{})
		l := &link{client, server, frozen, sync.OnceFunc(func() { close(frozen) })}
		p.mu.Lock()
		if p.refusing {
			_ = client.Close()
			_ = server.Close()
		}
		if p.silent {
			l.freeze()
		}
		p.links = append(p.links, l)
		p.mu.Unlock()
		p.work.Go(func() { l.copyBytes(server, client) })
		p.work.Go(func() { l.copyBytes(client, server) })
	}
}

func (l *link) copyBytes(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-l.frozen:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			_ = l.client.Close()
			_ = l.server.Close()
			return
		}
	}
}

// Cut closes all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		_ = l.client.Close()
		_ = l.server.Close()
	}
	p.links = nil
}

// Freeze stops forwarding on all connections without closing them.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freezeLinks()
}

// Silence freezes all connections, and every new one.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = true
	p.freezeLinks()
}

// freezeLinks is Freeze for callers that hold mu.
func (p *Proxy) freezeLinks() {
	for _, l := range p.links {
		l.freeze()
	}
}

// Refuse closes all connections, and every new one until Accept.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.refusing = true
	p.mu.Unlock()
	p.Cut()
}

// Accept forwards new connections again. Frozen ones stay frozen: Cut closes them.
func (p *Proxy) Accept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing, p.silent = false, false
}
