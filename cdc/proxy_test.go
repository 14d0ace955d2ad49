package cdc_test

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// proxy stands between a client and the server, and can fail in the ways of a network.
type proxy struct {
	host string
	port uint16

	listener net.Listener
	server   string
	work     sync.WaitGroup
	mu       sync.Mutex
	links    []*link
	refusing bool
}

type link struct {
	client, server net.Conn
	frozen         chan struct{}
}

func newProxy(tb testing.TB, config *pgx.ConnConfig) *proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	host, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(tb, err)
	number, err := strconv.ParseUint(port, 10, 16)
	require.NoError(tb, err)
	p := &proxy{host: host, port: uint16(number), listener: listener, server: net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	p.work.Go(p.serve)
	tb.Cleanup(func() {
		_ = listener.Close()
		p.refuse()
		p.work.Wait()
	})
	return p
}

func (p *proxy) serve() {
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
		l := &link{client, server, make(chan struct{})}
		p.mu.Lock()
		if p.refusing {
			_ = client.Close()
			_ = server.Close()
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

// cut ends the connections there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		_ = l.client.Close()
		_ = l.server.Close()
	}
	p.links = nil
}

// freeze lets nothing more pass on the connections there are, and does not end them.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		close(l.frozen)
	}
}

// refuse cuts, and ends all that come until accept.
func (p *proxy) refuse() {
	p.mu.Lock()
	p.refusing = true
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) accept() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = false
}
