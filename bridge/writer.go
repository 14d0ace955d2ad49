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

// beginPage begins to write a page when the one before it was written, and fails if that could not be.
func (w *writer) beginPage(ctx context.Context, page delta.FeedPage, written func()) error {
	if err := w.awaitPage(); err != nil {
		return err
	}
	running := make(chan error, 1)
	w.running, w.written = running, written
	go func() { running <- w.feed.Write(ctx, page) }()
	return nil
}

// awaitPage waits until the current page, if there is one, is written.
func (w *writer) awaitPage() error {
	if w.running == nil {
		return nil
	}
	return w.endPage(<-w.running)
}

// endPage is called with what running has given.
func (w *writer) endPage(err error) error {
	w.running = nil
	if err == nil {
		w.written()
	}
	return err
}

// abandonPage waits as awaitPage does, and ignores the error: the run ends in any case.
func (w *writer) abandonPage() { _ = w.awaitPage() }
