package delta

import (
	"context"
	"errors"
	"fmt"
	"time"
)

type clientKey struct{}

// withClient returns the context for calls of user code: ClientFromContext finds the client in it.
func (c *Client) withClient(ctx context.Context) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientFromContext returns the client from the context of a controller's Work or Inform. It panics for any other context.
func ClientFromContext(ctx context.Context) *Client {
	client, err := ClientFromContextSafely(ctx)
	if err != nil {
		panic(err)
	}
	return client
}

// ClientFromContextSafely returns the client from the context of a controller's Work or Inform, and an error for any other
// context.
func ClientFromContextSafely(ctx context.Context) (*Client, error) {
	if client, ok := ctx.Value(clientKey{}).(*Client); ok {
		return client, nil
	}
	return nil, errors.New("delta: no client in the context: it is only in those that Work and Inform are given")
}

// withCause adds the context's cause to an error of a context that ended, because pgx reports only that it ended.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || !errors.Is(err, ctx.Err()) || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// stopGrace is how long calls in progress may go on after the client was stopped.
const stopGrace = time.Second

// withGrace returns a context that ends stopGrace after ctx, and at the latest after most.
func withGrace(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })
	return patient, func() { stop(); cancel() }
}
