package delta_test

import (
	"context"

	"github.com/chariot-giving/delta/delta"
)

var _ delta.Controller[Order] = (*OrderController)(nil)

// Orders come from a feed that calls back.
type Order struct{ Number string }

func (o Order) ID() string   { return o.Number }
func (o Order) Kind() string { return "order" }

type OrderController struct {
	delta.WorkerDefaults[Order]
	delta.InformerDefaults[Order]
	feed interface {
		Each(ctx context.Context, each func(Order) error) error
	}
}

func (c *OrderController) Work(context.Context, *delta.Resource[Order]) error { return nil }

func (c *OrderController) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan Order, error) {
	orders := make(chan Order)
	go func() {
		defer close(orders)
		err := c.feed.Each(ctx, func(o Order) error {
			select {
			case orders <- o:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			delta.FailInform(ctx, err) // before the channel is closed
		}
	}()
	return orders, nil
}
