package delta

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// FailInform fails the pass of an informer that sends on a channel, at once and with this reason: the cursor stays, and nothing is marked
// deleted. ctx is the context that Inform was given, or one made from it. It is called before the channel is closed, from any goroutine:
//
//	go func() {
//		defer close(objects)
//		if err := list(ctx, objects); err != nil {
//			delta.FailInform(ctx, err)
//		}
//	}()
//
// The first reason counts. With any other context, and after the end of the listing, it fails nothing, and logs that as an error.
func FailInform(ctx context.Context, err error) {
	if err == nil {
		err = errors.New("delta.FailInform was called without an error")
	}
	listing, ok := ctx.Value(listingKey{}).(*listing)
	if !ok {
		loggerOf(ctx).Error("delta.FailInform was called with a context that is not that of an informer: no pass has failed", "error", err)
		return
	}
	switch ended, before := listing.fail(err); {
	case ended && before == nil:
		loggerOf(ctx).Error("delta.FailInform came too late: the listing had ended, and counts as complete. Call it before the channel is closed",
			"kind", listing.kind, "error", err)
	case before != nil && !errors.Is(err, ctx.Err()): // the end of the context is what the pass failed with
		loggerOf(ctx).Warn("delta.FailInform: the listing had failed before", "kind", listing.kind, "error", err, "failed_with", before)
	}
}

// loggerOf is that of the client whose informer has the context.
func loggerOf(ctx context.Context) *slog.Logger {
	if client, err := ClientFromContextSafely(ctx); err == nil {
		return client.config.Logger
	}
	return slog.Default()
}

type listingKey struct{}

// listing is one pass, as far as the informer that has its context can decide it.
type listing struct {
	kind string
	// failed is closed when the informer says that it failed.
	failed chan struct{}

	mu    sync.Mutex
	err   error
	ended bool
}

// fail notes why the listing failed, and returns whether it had ended, and the error that it had before.
func (l *listing) fail(err error) (ended bool, before error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended && l.err == nil {
		l.err = err
		close(l.failed)
		return false, nil
	}
	return l.ended, l.err
}

// end ends the listing with an error, or nil, and returns the one that counts: the informer's own.
func (l *listing) end(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.err == nil {
		l.err = err
	}
	return l.err
}

func (l *listing) hasFailed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}
