package bridge

import (
	"time"

	"github.com/chariot-giving/delta/delta"
)

const (
	// pageSize is how many changes are written at once, and pageBytes about how large they are together at most.
	pageSize  = 1000
	pageBytes = 4 << 20
)

// page has what is to be written at once: of each object what was said last.
type page struct {
	changes []delta.FeedChange
	at      map[string]int
	bytes   int
	began   time.Time
}

// putChange adds a change of an object, in place of an earlier one. An object without an id has no earlier one.
func (p *page) putChange(id string, size int, change delta.FeedChange) {
	if p.at == nil {
		p.at = map[string]int{}
	}
	if len(p.changes) == 0 {
		p.began = time.Now()
	}
	p.bytes += size
	if i, there := p.at[id]; there && id != "" {
		change.Listed = change.Listed && p.changes[i].Listed // a change that came meanwhile is more than a row that is found
		p.changes[i] = change
		return
	}
	p.at[id] = len(p.changes)
	p.changes = append(p.changes, change)
}

func (p *page) clear() {
	p.changes, p.bytes = p.changes[:0], 0
	clear(p.at)
}

func (p *page) isFull() bool { return len(p.changes) >= pageSize || p.bytes >= pageBytes }

// isDue reports whether the page has waited for long enough for further changes.
func (p *page) isDue() bool {
	return p.isFull() || (len(p.changes) > 0 && time.Since(p.began) >= pageAge)
}
