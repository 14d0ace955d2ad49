package delta

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
)

var (
	errNextAgain     = errors.New("a Middleware called next a second time: nothing was called")
	errNextLate      = errors.New("a Middleware called next after it had returned: nothing was called")
	errReturnedEarly = errors.New("a Middleware returned before next had returned")
	errNextExited    = errors.New("the call ended its goroutine (runtime.Goexit)")
)

// callWithMiddleware calls a controller within its span and the client's Middleware. Panics become errors. When it returns,
// do has returned and will not be called again, whatever a Middleware does.
func callWithMiddleware(ctx context.Context, call *Call, do func(context.Context) error) error {
	next := func(ctx context.Context) (err error) {
		defer catchPanic(&err)
		return do(ctx)
	}
	ctx = context.WithValue(ctx, callKey{}, call)
	client, err := ClientFromContextSafely(ctx)
	if err != nil {
		return next(ctx)
	}
	for _, middleware := range slices.Backward(client.config.Middleware) {
		next = middleware.wrapCall(call, next)
	}
	return client.callInSpan(ctx, call, next)
}

// wrapCall returns next within the Middleware.
func (m Middleware) wrapCall(call *Call, next func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		inner := &nextCall{next: next, ended: make(chan struct{})}
		// This also runs if the Middleware ends its goroutine.
		defer func() {
			v := recover()
			if v == nil {
				err = inner.endCall(err)
				return
			}
			Logger(ctx).Error("a Middleware panicked; it is left out of this call", "operation", call.Operation, "panic", v, "stack", string(debug.Stack()))
			err = inner.callInstead(ctx)
		}()
		return m(ctx, call, inner.callOnce)
	}
}

// nextCall calls next for a Middleware, once, and only while the Middleware runs. When the Middleware has returned, the
// outcome of the call is written, and its slot and claim are freed. If next were still running then, another client could
// call Work for the same resource.
type nextCall struct {
	next func(context.Context) error
	// ended is closed when a call of next has ended.
	ended chan struct{}

	mu sync.Mutex
	// isOver reports whether the Middleware has returned.
	isOver bool
	// cancel ends the context of next; nil until next is called.
	cancel context.CancelCauseFunc
	// hasReturned reports whether next has returned err; false if it ended its goroutine.
	hasReturned bool
	err         error
}

// callOnce is the function that the Middleware calls. No lock is held while next runs, so that a second call is refused at
// once.
func (c *nextCall) callOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	if err := c.beginCall(cancel); err != nil {
		cancel(err)
		return err
	}
	defer close(c.ended)
	err := c.next(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hasReturned, c.err = true, err
	return err
}

func (c *nextCall) beginCall(cancel context.CancelCauseFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.isOver:
		return errNextLate
	case c.cancel != nil:
		return errNextAgain
	}
	c.cancel, c.err = cancel, errNextExited
	return nil
}

// endCall refuses further calls of next, waits for a started one, and returns the error of the whole call; err is that of
// the Middleware. If the Middleware returned nil before next had returned, next's error counts, because the Middleware
// could not know it.
func (c *nextCall) endCall(err error) error {
	c.mu.Lock()
	c.isOver = true
	cancel, hadReturned := c.cancel, c.hasReturned
	c.mu.Unlock()
	if cancel == nil {
		return err
	}
	cancel(errReturnedEarly)
	<-c.ended
	if err != nil || hadReturned || c.err == nil {
		return err
	}
	return fmt.Errorf("%w: %w", errReturnedEarly, c.err)
}

// callInstead calls next in place of a Middleware that panicked. If the Middleware has called next, callInstead waits for
// that call and does not cancel it, so that a Middleware that panics harms nothing.
func (c *nextCall) callInstead(ctx context.Context) error {
	_ = c.callOnce(ctx) // refused if next was called; the error of that call counts
	<-c.ended
	c.cancel(nil)
	return c.err
}
