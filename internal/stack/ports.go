package stack

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// errPortTaken means that a server could not have the port chosen for it.
type errPortTaken struct{ port int }

func (e errPortTaken) Error() string { return fmt.Sprintf("port %d was taken meanwhile", e.port) }

// portChooser chooses ports: the preferred one, else the one of the last run,
// else a free one.
type portChooser struct {
	path string
	free func(port int) bool

	mu     sync.Mutex
	last   map[string]int
	chosen map[string]int
}

func newPortChooser(path string) *portChooser {
	p := &portChooser{path: path, free: portFree, last: map[string]int{}, chosen: map[string]int{}}
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &p.last) // a damaged file only costs the memory of it
	}
	return p
}

func (p *portChooser) choose(name string, preferred int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range []int{preferred, p.last[name]} {
		if port > 0 && !p.ours(name, port) && p.free(port) {
			p.chosen[name] = port
			return port, nil
		}
	}
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("looking for a free port for %s: %w", name, err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, err
		}
		if !p.ours(name, port) {
			p.chosen[name] = port
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port found for %s", name)
}

// ours tells whether another of our servers was promised the port.
func (p *portChooser) ours(name string, port int) bool {
	for other, chosen := range p.chosen {
		if other != name && chosen == port {
			return true
		}
	}
	return false
}

// remember keeps the ports for the next run. Failing to is no reason to fail.
func (p *portChooser) remember() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, err := json.Marshal(p.chosen); err == nil {
		_ = os.WriteFile(p.path, b, 0o644)
	}
}

// portFree tells whether 127.0.0.1:port can be listened on and nobody answers
// there: some systems let us listen beside a server on all addresses.
func portFree(port int) bool {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	_ = l.Close()
	conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
	if err != nil {
		return true
	}
	_ = conn.Close()
	return false
}
