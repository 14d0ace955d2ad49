package bridge

import (
	"context"

	"github.com/chariot-giving/delta/delta"
)

// writer writes pages one after another, each while the next one is read and folded. It is for one goroutine.
type writer struct {
	feed *delta.Feed
	// running gives the result of the page that is being written; nil for none. written is called when it was.
	running chan error
	written func()
}

// begin begins to write a page when the one before it was written, and fails if that could not be.
func (w *writer) begin(ctx context.Context, page delta.FeedPage, written func()) error {
	if err := w.settle(); err != nil {
		return err
	}
	running := make(chan error, 1)
	w.running, w.written = running, written
	go func() { running <- w.feed.Write(ctx, page) }()
	return nil
}

// settle waits until the page that is being written was, if there is one.
func (w *writer) settle() error {
	if w.running == nil {
		return nil
	}
	return w.end(<-w.running)
}

// end is called with what running has given.
func (w *writer) end(err error) error {
	w.running = nil
	if err == nil {
		w.written()
	}
	return err
}

// abandon waits as settle does. The run ends, for another error or for that of the page.
func (w *writer) abandon() { _ = w.settle() }
