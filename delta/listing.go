package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// FailInform fails the pass of an informer that sends on a channel, at once and with this reason: the cursor stays, and
// nothing is marked deleted. ctx is the context of Inform, or one derived from it. Call it before the channel is closed,
// from any goroutine:
//
//	go func() {
//		defer close(objects)
//		if err := list(ctx, objects); err != nil {
//			delta.FailInform(ctx, err)
//		}
//	}()
//
// The first reason counts. With any other context, or after the end of the listing, it has no effect but an error in the
// log.
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
	case before != nil && !errors.Is(err, ctx.Err()): // the pass failed with the end of the context
		Logger(ctx).Warn("delta.FailInform: the listing had failed before", "error", err, "failed_with", before)
	}
}

// maxCursorBytes bounds an informer's cursor, which is read and written with each pass.
const maxCursorBytes = 64 << 10

// SetCursor stores the informer's own position, such as a page token or the number of a change: it is
// [InformOptions].Cursor of the next pass, beside After. Call it during the pass, with its context or one derived from it,
// before the listing ends; the last call counts. The cursor is stored only if the pass is complete, and was not narrowed by
// options of its caller. An empty cursor means none.
//
// Valid UTF-8 without NUL characters, 64 KiB at most; any other fails the pass. With any other context, or after the end of
// the listing, it has no effect but an error in the log.
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

// listing is the part of a pass that its informer decides through the context.
type listing struct {
	// failed is closed when the informer calls FailInform.
	failed chan struct{}

	mu    sync.Mutex
	err   error
	ended bool
	// cursor is the informer's own; nil if it set none.
	cursor *string
}

// setCursor stores the informer's cursor, and reports whether the listing goes on.
func (l *listing) setCursor(cursor string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.cursor = &cursor
	}
	return !l.ended
}

// failWith stores why the listing failed. It returns whether the listing had ended, and its earlier error.
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

// informerError returns the error of FailInform; nil if there is none.
func (l *listing) informerError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// endListing ends the listing with an error, or nil. It returns the error that counts, which is the informer's own if there
// is one, and the cursor.
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
