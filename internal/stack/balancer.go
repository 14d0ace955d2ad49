package stack

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// balancer forwards connections to servers in turn, and past those that do not listen, as the load balancer before Temporal's frontends does.
type balancer struct {
	address  string
	listener net.Listener
	servers  []string
	turn     atomic.Uint64
	work     sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool
	isClosed bool
}

func startBalancer(servers []string) (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{address: listener.Addr().String(), listener: listener, servers: servers, open: map[net.Conn]bool{}}
	b.work.Go(b.accept)
	return b, nil
}

func (b *balancer) accept() {
	for {
		from, err := b.listener.Accept()
		if err != nil {
			return // closed
		}
		b.work.Go(func() { b.forward(from) })
	}
}

func (b *balancer) forward(from net.Conn) {
	to := b.dialNext()
	if to == nil || !b.keep(from, to) {
		_ = from.Close()
		if to != nil {
			_ = to.Close()
		}
		return
	}
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = from.Close()
			_ = to.Close()
		})
	}
	both.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, from)
	delete(b.open, to)
}

// dialNext connects to the server whose turn it is, or to the next one that listens; nil if none does.
func (b *balancer) dialNext() net.Conn {
	first := b.turn.Add(1)
	for i := range uint64(len(b.servers)) {
		conn, err := net.DialTimeout("tcp", b.servers[(first+i)%uint64(len(b.servers))], time.Second)
		if err == nil {
			return conn
		}
	}
	return nil
}

// keep notes connections, so that close can end them. It reports false once the balancer is closed.
func (b *balancer) keep(conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed {
		return false
	}
	for _, conn := range conns {
		b.open[conn] = true
	}
	return true
}

func (b *balancer) close() error {
	err := b.listener.Close()
	b.mu.Lock()
	b.isClosed = true
	for conn := range b.open {
		_ = conn.Close()
	}
	b.mu.Unlock()
	b.work.Wait()
	return err
}
