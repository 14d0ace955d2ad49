package cdc_test

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/cdc"
)

// consumer is a program's own part of one: load gives the position that save has kept together with what apply has made of the changes; 0: none.
type consumerState interface {
	load(ctx context.Context) (cdc.LSN, error)
	apply(ctx context.Context, t *cdc.Transaction) error
	save(ctx context.Context, at cdc.LSN) error
}

func shareSlot(ctx context.Context, config *pgx.ConnConfig, search, cache consumerState) error {
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
func readConsumer(ctx context.Context, fanout *cdc.Fanout, name string, c consumerState) error {
	kept, err := c.load(ctx)
	if err != nil {
		return err
	}
	var reader *cdc.Consumer
	var backfill *cdc.Backfill
	if kept != 0 {
		reader, err = fanout.Attach(name, kept)
	}
	anew := kept == 0 || errors.Is(err, cdc.ErrResyncNeeded) // it was away for too long
	if anew {
		reader, err = fanout.Join(name) // the changes from now on, and the table beside them
	}
	if err != nil {
		return err
	}
	defer reader.Close()
	defer context.AfterFunc(ctx, reader.Close)()
	if anew {
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
		if anew = anew && !t.BackfillEnds; anew && backfill.Err() != nil {
			return backfill.Err()
		}
		if !anew { // or else a restart begins anew, for the table was not read to its end
			if err := c.save(ctx, t.EndLSN); err != nil {
				return err
			}
		}
		if err := reader.Ack(t.EndLSN); err != nil {
			return err
		}
	}
}
