package delta_test

import (
	"context"
	"sync/atomic"

	"github.com/chariot-giving/delta/delta"
)

var _ delta.Controller[*User] = (*Counted)(nil)

// A decorator counts the calls of Work. Without Unwrap, what else the controller can do would be hidden.
type Counted struct {
	delta.Controller[*User]
	calls atomic.Int64
}

func (c *Counted) Unwrap() any { return c.Controller }

func (c *Counted) Work(ctx context.Context, r *delta.Resource[*User]) error {
	c.calls.Add(1)
	return c.Controller.Work(ctx, r)
}
