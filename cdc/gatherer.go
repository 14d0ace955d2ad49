package cdc

import (
	"io"
	"time"
)

const (
	// gatherGap is how soon after each other messages come that are many.
	gatherGap = 50 * time.Microsecond
	// gatherAfter is how many have to come so before any are gathered.
	gatherAfter = 64
	// gatherTime is how long they are.
	gatherTime = 500 * time.Microsecond
)

// gatherer reads a connection on which the server flushes each small message by itself. While very many come, waking up for each
// costs more than all else, on the server's side too, where the processor is shared: so it lets some arrive first. Those
// that come now and then are read at once.
type gatherer struct {
	from    io.Reader
	last    time.Time // when the last read returned
	streak  int       // reads one shortly after the other
	drained bool      // the last read took all there was
}

func (g *gatherer) Read(p []byte) (int, error) {
	if g.drained && g.streak >= gatherAfter {
		time.Sleep(gatherTime)
		g.last = time.Now()
	}
	n, err := g.from.Read(p)
	now := time.Now()
	if now.Sub(g.last) < gatherGap {
		g.streak++
	} else {
		g.streak = 0
	}
	g.last, g.drained = now, n < len(p)
	return n, err
}
