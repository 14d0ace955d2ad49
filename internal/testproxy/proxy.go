// Package testproxy stands between a client and a server in tests, and fails in the ways of a network.
package testproxy

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxy forwards connections. Its methods may be called at any time.
type Proxy struct {
	// Address is where clients connect to: Host and Port.
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

// New forwards to a server, until the test has ended.
func New(tb testing.TB, server string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	host, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(tb, err)
	number, err := strconv.ParseUint(port, 10, 16)
	require.NoError(tb, err)
	p := &Proxy{Address: listener.Addr().String(), Host: host, Port: uint16(number), listener: listener, server: server}
	p.work.Go(p.serve)
	tb.Cleanup(func() {
		_ = listener.Close()
		p.Refuse()
		p.work.Wait()
	})
	return p
}

func (p *Proxy) serve() {
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
		p.work.Go(func() { l.copy(server, client) })
		p.work.Go(func() { l.copy(client, server) })
	}
}

func (l *link) copy(to, from net.Conn) {
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

// Cut ends the connections there are.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		_ = l.client.Close()
		_ = l.server.Close()
	}
	p.links = nil
}

// Freeze lets nothing more pass on the connections there are, and does not end them.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeze()
}

// Silence does so with those that come, too.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = true
	p.freeze()
}

// freeze is Freeze with mu held.
func (p *Proxy) freeze() {
	for _, l := range p.links {
		l.freeze()
	}
}

// Refuse ends the connections there are, and all that come until Accept.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.refusing = true
	p.mu.Unlock()
	p.Cut()
}

// Accept forwards connections again that come. Those that are frozen stay so: Cut ends them.
func (p *Proxy) Accept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing, p.silent = false, false
}
