// Package claimed turns a cursor that one process has at a time into a source of sinks.
package claimed

import (
	"context"
	"sync"

	"github.com/chariot-giving/delta/sinks"
)

// Cursor reads entries, and saves the place of the last one that was handled, P. Next and Save return an error if another process has taken
// the cursor over.
type Cursor[E, P any] interface {
	Next(ctx context.Context) ([]E, error)
	Save(ctx context.Context, place P) error
	// Done is closed when the claim is lost.
	Done() <-chan struct{}
	// Close releases the cursor, so that another process gets it at once.
	Close()
}

// Source is a [sinks.ClaimedSource] that opens its cursor again after it has lost its place.
type Source[E, P any] struct {
	// Open waits until this process has the cursor.
	Open func(ctx context.Context) (Cursor[E, P], error)
	// Message converts an entry to a message, without its position, and returns the entry's place. An error is permanent.
	Message func(entry E) (sinks.Message, P, error)
	// Superseded is the error of Confirm for a place that was read before the claim was lost. IsLost reports whether an error of Next means
	// that the place was lost, and IsPermanent whether an error cannot change.
	Superseded          error
	IsLost, IsPermanent func(err error) bool

	mu     sync.Mutex
	cursor Cursor[E, P] // nil before the first call of Next, and after the claim was lost
	claim  int          // numbers the cursors
	rest   []E          // only for Next: read, and not returned yet
}

// position is the position of an entry, and the claim under which it was read.
type position[P any] struct {
	claim int
	place P
}

// Next returns the next messages, and waits for the cursor if needed.
func (s *Source[E, P]) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	cursor, claim, err := s.openCursor(ctx)
	if err != nil {
		return nil, s.classifyError(err)
	}
	if len(s.rest) == 0 || isDone(cursor.Done()) {
		s.rest, err = cursor.Next(ctx)
	}
	switch {
	case err != nil && s.IsLost(err):
		s.Close()
		return nil, sinks.Resume(err)
	case err != nil:
		return nil, s.classifyError(err)
	}
	page := s.rest[:min(limit, len(s.rest))]
	s.rest = s.rest[len(page):]
	messages := make([]sinks.Message, len(page))
	for i, entry := range page {
		message, place, err := s.Message(entry)
		if err != nil {
			return nil, sinks.Permanent(err)
		}
		message.Position = position[P]{claim, place}
		messages[i] = message
	}
	return messages, nil
}

func (s *Source[E, P]) openCursor(ctx context.Context) (Cursor[E, P], int, error) {
	if cursor, claim := s.currentCursor(); cursor != nil {
		return cursor, claim, nil
	}
	cursor, err := s.Open(ctx)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = cursor
	s.claim++
	return cursor, s.claim, nil
}

func (s *Source[E, P]) currentCursor() (Cursor[E, P], int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor, s.claim
}

func (s *Source[E, P]) classifyError(err error) error {
	if s.IsPermanent(err) {
		return sinks.Permanent(err)
	}
	return err
}

// Confirm saves the place of a message.
func (s *Source[E, P]) Confirm(ctx context.Context, at any) error {
	p := at.(position[P]) //nolint:forcetypeassert // it is ours
	cursor, claim := s.currentCursor()
	if cursor == nil || claim != p.claim {
		return s.Superseded
	}
	return cursor.Save(ctx, p.place)
}

// Lost returns a channel that is closed when the claim is lost.
func (s *Source[E, P]) Lost() <-chan struct{} {
	if cursor, _ := s.currentCursor(); cursor != nil {
		return cursor.Done()
	}
	return nil
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close releases the cursor, so that another process gets it at once.
func (s *Source[E, P]) Close() {
	s.mu.Lock()
	cursor := s.cursor
	s.cursor, s.rest = nil, nil
	s.mu.Unlock()
	if cursor != nil {
		cursor.Close()
	}
}
