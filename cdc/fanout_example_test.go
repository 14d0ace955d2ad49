package cdc_test

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/cdc"
)

// consumer is the part of a program that reads as one consumer. load returns the position that save has stored together
// with the results of apply, 0 if there is none.
type consumer interface {
	load(ctx context.Context) (cdc.LSN, error)
	apply(ctx context.Context, t *cdc.Transaction) error
	save(ctx context.Context, at cdc.LSN) error
}

func shareSlot(ctx context.Context, config *pgx.ConnConfig, search, cache consumer) error {
	fanout, err := cdc.OpenFanout(ctx, cdc.FanoutConfig{
		Config:    cdc.Config{Conn: config, Slot: "accounts", Publications: []string{"accounts"}},
		Consumers: []string{"search", "cache"},
	})
	if err != nil {
		return err
	}
	defer fanout.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return readConsumer(ctx, fanout, "search", search) })
	group.Go(func() error { return readConsumer(ctx, fanout, "cache", cache) })
	return group.Wait()
}

// readConsumer reads as one consumer until the context ends.
func readConsumer(ctx context.Context, fanout *cdc.Fanout, name string, c consumer) error {
	kept, err := c.load(ctx)
	if err != nil {
		return err
	}
	var reader *cdc.Consumer
	var backfill *cdc.Backfill
	if kept != 0 {
		reader, err = fanout.Attach(name, kept)
	}
	startOver := kept == 0 || errors.Is(err, cdc.ErrResyncNeeded) // it was detached for too long
	if startOver {
		reader, err = fanout.Join(name) // changes from now on, and the table by Backfill
	}
	if err != nil {
		return err
	}
	defer reader.Close()
	defer context.AfterFunc(ctx, reader.Close)()
	if startOver {
		if backfill, err = fanout.Backfill(ctx, name, cdc.BackfillConfig{Table: "account"}); err != nil {
			return err
		}
	}
	for {
		t, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, t); err != nil {
			return err
		}
		if startOver = startOver && !t.BackfillEnds; startOver && backfill.Err() != nil {
			return backfill.Err()
		}
		if !startOver { // no position is stored before the table was read to its end, so that a restart starts over
			if err := c.save(ctx, t.EndLSN); err != nil {
				return err
			}
		}
		if err := reader.Ack(t.EndLSN); err != nil {
			return err
		}
	}
}
