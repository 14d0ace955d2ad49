package cdc

import (
	"io"
	"time"
)

const (
	// gatherWindow is the period of counting messages, and gatherThreshold the number from which the stream is busy:
	// 20,000 in a second.
	gatherWindow    = 10 * time.Millisecond
	gatherThreshold = 200
	// gatherDelay is how long to wait for more messages.
	gatherDelay = 500 * time.Microsecond
)

// gatherer reads a connection on which the server flushes each small message separately. On a busy stream, waking up
// for each message costs more than everything else, also on the server if it shares the processors. So the gatherer
// first waits for several messages to arrive. On an idle stream it reads each message at once. It belongs to the
// goroutine that reads.
type gatherer struct {
	from      io.Reader
	isDrained bool // the last read has emptied the socket

	window   time.Time // the start of the current window
	messages int
	isBusy   bool // in the previous window
}

func (g *gatherer) Read(p []byte) (int, error) {
	if g.isBusy && g.isDrained {
		time.Sleep(gatherDelay)
	}
	n, err := g.from.Read(p)
	g.isDrained = n < len(p)
	return n, err
}

// countMessage must be called for each message.
func (g *gatherer) countMessage(now time.Time) {
	g.messages++
	if took := now.Sub(g.window); took >= gatherWindow {
		g.isBusy = g.messages >= gatherThreshold && took < 2*gatherWindow
		g.window, g.messages = now, 0
	}
}
