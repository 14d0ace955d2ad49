package stack

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/freeport"
)

// errPortTaken is the error of a server that could not listen on its port.
type errPortTaken struct{ port int }

func (e errPortTaken) Error() string { return fmt.Sprintf("port %d was taken meanwhile", e.port) }

// portChooser chooses the preferred port, otherwise the one of the last run, otherwise any free one.
type portChooser struct {
	path string
	free func(port int) bool

	mu     sync.Mutex
	last   map[string]int
	chosen map[string]int
}

func newPortChooser(path string) *portChooser {
	p := &portChooser{path: path, free: isPortFree, last: map[string]int{}, chosen: map[string]int{}}
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &p.last) // ignore a damaged file: then the last ports are not known
	}
	return p
}

func (p *portChooser) choosePort(name string, preferred int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range []int{preferred, p.last[name]} {
		if port > 0 && !p.isPromised(name, port) && p.free(port) {
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
		if err := freeport.Close(l); err != nil {
			return 0, err
		}
		if !p.isPromised(name, port) {
			p.chosen[name] = port
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port found for %s", name)
}

// isPromised reports whether the port was chosen for another server of the stack.
func (p *portChooser) isPromised(name string, port int) bool {
	for other, chosen := range p.chosen {
		if other != name && chosen == port {
			return true
		}
	}
	return false
}

// savePorts saves the ports for the next run. It ignores errors, because the next run can choose others.
func (p *portChooser) savePorts() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, err := json.Marshal(p.chosen); err == nil {
		_ = os.WriteFile(p.path, b, 0o644)
	}
}

// isPortFree reports whether 127.0.0.1:port can be listened on and no server answers there. Some systems allow listening on it although a server
// listens on all addresses.
func isPortFree(port int) bool {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	_ = freeport.Close(l)
	conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
	if err != nil {
		return true
	}
	_ = conn.Close()
	return false
}
