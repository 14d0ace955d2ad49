package cdc

import (
	"io"
	"time"
)

const (
	// gatherWindow is how often messages are counted, and gatherFrom how many are many: 20,000 in a second.
	gatherWindow    = 10 * time.Millisecond
	gatherThreshold = 200
	// gatherTime is how long they are gathered.
	gatherDelay = 500 * time.Microsecond
)

// gatherer reads a connection on which the server flushes each small message by itself. While very many come, waking up for each
// costs more than all else, on the server's side too where they share processors: so it lets some arrive first. Those that
// come now and then are read at once. It belongs to the goroutine that reads.
type gatherer struct {
	from      io.Reader
	isDrained bool // the last read took all there was

	window   time.Time // when the count began
	messages int
	isBusy   bool // in the window before
}

func (g *gatherer) Read(p []byte) (int, error) {
	if g.isBusy && g.isDrained {
		time.Sleep(gatherDelay)
	}
	n, err := g.from.Read(p)
	g.isDrained = n < len(p)
	return n, err
}

// countMessage is called with each message.
func (g *gatherer) countMessage(now time.Time) {
	g.messages++
	if took := now.Sub(g.window); took >= gatherWindow {
		g.isBusy = g.messages >= gatherThreshold && took < 2*gatherWindow
		g.window, g.messages = now, 0
	}
}
