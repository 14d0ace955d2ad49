package sinks

import (
	"context"
	"errors"
	"time"
)

// Message is what a [Source] gives and a [Sink] delivers.
type Message struct {
	// ID identifies the message. It is the same whenever the message is delivered again, and no other message of the source has it.
	ID string
	// Key is what order is kept for: messages with the same key are delivered one after another. Messages without a key are in no order.
	Key string
	// Subject is what the message is about: a kind, a table as schema.table, or a category. Sinks make topics and subjects of it.
	Subject string
	// Type is what happened, such as created, update or OrderPlaced.
	Type string
	// Time is when it happened, in UTC.
	Time time.Time
	// Headers go with the message where a system has headers. Nil is none.
	Headers map[string]string
	// Body is the content, in most cases JSON. Nil is none.
	Body []byte

	// Barrier says that the message is about all keys, such as a truncated table: it is delivered when all messages before it are finished,
	// and those after it when it is.
	Barrier bool
	// Position is what the source knows the message by when it is confirmed. A transform function leaves it alone.
	Position any
}

// Source gives messages in an order that is the same at each start. A Relay calls Next from one goroutine, and Confirm from another.
type Source interface {
	// Next waits for messages and returns at least one, and no more than about limit. The first call returns those after the last confirmed one. An error
	// that [Permanent] made ends the relay; after any other, Next is called again a little later: after one that [Resume] made, as if for the first time.
	Next(ctx context.Context, limit int) ([]Message, error)
	// Confirm says that the message with this position, and all before it, need not come again. After an error it is called again.
	Confirm(ctx context.Context, position any) error
}

// ClosableSource is a Source that keeps something while it is read, such as a claim.
type ClosableSource interface {
	Source
	// Close is called once, when [Relay.Run] ends and calls no other method of the source any more.
	Close()
}

// ClaimedSource is a Source that one process at a time may read, as long as it has a claim.
type ClaimedSource interface {
	Source
	// Lost returns a channel that is closed when the claim is lost by which the last messages were read. The relay begins no more deliveries then, and calls Next,
	// also if [Config.Window] is full: it must return an error that [Resume] made.
	Lost() <-chan struct{}
}

// Sink delivers messages to one system. Its methods may be called by several goroutines at once.
type Sink interface {
	// Deliver delivers messages, all of different keys, and returns when the system has them safely. It returns nil if all were delivered,
	// and otherwise one error for each message, in their order: nil for those that were delivered. An error that [Permanent] made says that
	// the same message will never be accepted.
	Deliver(ctx context.Context, messages []Message) []error
}

// SinkFunc is a Sink that is one function.
type SinkFunc func(ctx context.Context, messages []Message) []error

// Deliver calls the function.
func (f SinkFunc) Deliver(ctx context.Context, messages []Message) []error { return f(ctx, messages) }

// FailAll returns the same error for each of n messages: the result of a Deliver that reached nobody.
func FailAll(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// ErrNotTried is a Sink's error for a message that it had no time to send: that is no attempt.
var ErrNotTried = errors.New("sinks: there was no time to try")

// Permanent marks an error that will be the same at each further attempt: a message that is refused, or a source that is gone. It returns nil
// for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether an error was marked by [Permanent].
func IsPermanent(err error) bool {
	var permanent *permanentError
	return errors.As(err, &permanent)
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Resume marks an error of a Source that goes on behind the last confirmed message, because it has lost its place: another process may have read on from there.
// The relay waits for the deliveries that run, forgets everything else that it has read, and calls Next again. It returns nil for nil.
func Resume(err error) error {
	if err == nil {
		return nil
	}
	return &resumeError{err}
}

type resumeError struct{ err error }

func (e *resumeError) Error() string { return e.err.Error() }
func (e *resumeError) Unwrap() error { return e.err }

// isResume reports whether an error was marked by [Resume].
func isResume(err error) bool {
	var marked *resumeError
	return errors.As(err, &marked)
}

// RetryAfter marks an error with how long the system asks to be left alone: the message is not tried again sooner. It returns nil for nil.
func RetryAfter(err error, delay time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, delay}
}

type retryAfterError struct {
	err   error
	delay time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// retryAfter is the delay that an error asks for, 0 if it asks for none.
func retryAfter(err error) time.Duration {
	var marked *retryAfterError
	if errors.As(err, &marked) {
		return marked.delay
	}
	return 0
}
