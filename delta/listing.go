package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
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
		Logger(ctx).Error("delta.FailInform was called with a context that is not that of an informer: no pass has failed", "error", err)
		return
	}
	switch ended, before := listing.failWith(err); {
	case ended && before == nil:
		Logger(ctx).Error("delta.FailInform came too late: the listing had ended, and counts as complete. Call it before the channel is closed",
			"error", err)
	case before != nil && !errors.Is(err, ctx.Err()): // the end of the context is what the pass failed with
		Logger(ctx).Warn("delta.FailInform: the listing had failed before", "error", err, "failed_with", before)
	}
}

// maxCursorBytes bounds an informer's cursor, which is read and written with each pass.
const maxCursorBytes = 64 << 10

// SetCursor keeps a position of the informer's own, such as a page token or the number of a change: it is [InformOptions].Cursor of the next
// pass, beside After. It is called during the pass, with its context or one made from it, before the listing ends; the last call counts.
// The cursor is stored only if the pass is complete, and was not narrowed by options of its caller. An empty one means none.
//
// Valid UTF-8 without NUL characters, 64 KiB at most; any other fails the pass. With any other context, and after the end of the
// listing, it sets nothing, and logs that as an error.
func SetCursor(ctx context.Context, cursor string) {
	listing, ok := ctx.Value(listingKey{}).(*listing)
	if !ok {
		Logger(ctx).Error("delta.SetCursor was called with a context that is not that of an informer: no cursor was set")
		return
	}
	if len(cursor) > maxCursorBytes || !utf8.ValidString(cursor) || strings.ContainsRune(cursor, 0) {
		FailInform(ctx, fmt.Errorf("delta.SetCursor: %w",
			inputError("cursor", cursor, "must be valid UTF-8 without NUL characters, at most %d bytes", maxCursorBytes)))
		return
	}
	if !listing.setCursor(cursor) {
		Logger(ctx).Error("delta.SetCursor came too late: the listing had ended, and no cursor was set. Call it before the listing ends")
	}
}

type listingKey struct{}

// listing is one pass, as far as the informer that has its context can decide it.
type listing struct {
	// failed is closed when the informer says that it failed.
	failed chan struct{}

	mu    sync.Mutex
	err   error
	ended bool
	// cursor is the informer's own; nil where it set none.
	cursor *string
}

// setCursor notes the informer's cursor, and reports whether the listing goes on.
func (l *listing) setCursor(cursor string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.cursor = &cursor
	}
	return !l.ended
}

// failWith notes why the listing failed, and returns whether it had ended, and the error that it had before.
func (l *listing) failWith(err error) (ended bool, before error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended && l.err == nil {
		l.err = err
		close(l.failed)
		return false, nil
	}
	return l.ended, l.err
}

// informerError is why the informer has failed the listing; nil if it has not.
func (l *listing) informerError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// endListing ends the listing with an error, or nil. It returns the one that counts, the informer's own, and the cursor.
func (l *listing) endListing(err error) (cursor *string, failed error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.err == nil {
		l.err = err
	}
	return l.cursor, l.err
}

func (l *listing) hasFailed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}
