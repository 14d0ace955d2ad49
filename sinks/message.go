package sinks

import (
	"context"
	"errors"
	"time"
)

// Message is a unit that a [Source] gives and a [Sink] delivers.
type Message struct {
	// ID identifies the message. It is the same at each delivery of the message, and unique in the source.
	ID string
	// Key is the key of the order: messages with the same key are delivered one after another. Messages without a key have no order.
	Key string
	// Subject is the topic of the message: a kind, a table as schema.table, or a category. Sinks derive topics and subjects from it.
	Subject string
	// Type is the event, such as created, update or OrderPlaced.
	Type string
	// Time is when the event happened, in UTC.
	Time time.Time
	// Headers are sent with the message if the system has headers. Nil is none.
	Headers map[string]string
	// Body is the content, in most cases JSON. Nil is none.
	Body []byte

	// Barrier says that the message concerns all keys, such as a truncated table: it is delivered after all messages before it are
	// finished, and before any message after it.
	Barrier bool
	// Position identifies the message when it is confirmed to the source. A transform function must not change it.
	Position any
}

// Source gives messages in the same order after each start. A Relay calls Next from one goroutine, and Confirm from another.
type Source interface {
	// Next waits for messages and returns at least one, and at most about limit. The first call returns the messages after the last
	// confirmed one. An error marked by [Permanent] ends the relay. After any other error, Next is called again after a delay; after one
	// marked by [Resume], as if for the first time.
	Next(ctx context.Context, limit int) ([]Message, error)
	// Confirm says that the message with this position, and all before it, need not come again. After an error it is called again.
	Confirm(ctx context.Context, position any) error
}

// ClosableSource is a Source that holds a resource while it is read, such as a claim.
type ClosableSource interface {
	Source
	// Close is called once, when [Relay.Run] ends, after all other calls.
	Close()
}

// ClaimedSource is a Source that one process at a time may read, as long as it has a claim.
type ClaimedSource interface {
	Source
	// Lost returns a channel that is closed when the source loses the claim by which it read the last messages. The relay then starts no
	// more deliveries and calls Next, even if [Config.Window] is full: Next must return an error marked by [Resume].
	Lost() <-chan struct{}
}

// Sink delivers messages to one system. Its methods may be called concurrently.
type Sink interface {
	// Deliver delivers messages, all of different keys, and returns when the system has stored them. It returns nil if all were delivered,
	// and otherwise one error for each message, in their order: nil for delivered messages. An error marked by [Permanent] says that the
	// same message will never be accepted.
	Deliver(ctx context.Context, messages []Message) []error
}

// SinkFunc is a function as a Sink.
type SinkFunc func(ctx context.Context, messages []Message) []error

// Deliver calls the function.
func (f SinkFunc) Deliver(ctx context.Context, messages []Message) []error { return f(ctx, messages) }

// FailAll returns the same error for each of n messages: the result of a Deliver that did not reach the system.
func FailAll(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// ErrNotTried is a Sink's error for a message that it had no time to send. It does not count as an attempt.
var ErrNotTried = errors.New("sinks: there was no time to try")

// Permanent marks an error that further attempts cannot change: a refused message, or a source that is gone. It returns nil for nil.
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

// Resume marks an error of a Source that has lost its place, because another process may have read on, and will continue after the last
// confirmed message. The relay waits for running deliveries, forgets everything else that it has read, and calls Next again. It returns nil
// for nil.
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

// RetryAfter marks an error with the delay that the system asks for: the message is not tried again sooner. It returns nil for nil.
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

// retryAfter returns the delay that an error asks for, 0 if none.
func retryAfter(err error) time.Duration {
	var marked *retryAfterError
	if errors.As(err, &marked) {
		return marked.delay
	}
	return 0
}
