package cdc_test

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// shareSlot has two consumers read one slot. apply is called by both at the same time.
func shareSlot(ctx context.Context, config *pgx.ConnConfig, apply func(consumer string, change *cdc.Change) error) error {
	fanout, err := cdc.OpenFanout(ctx, cdc.FanoutConfig{
		Config:    cdc.Config{Conn: config, Slot: "accounts", Publications: []string{"accounts"}},
		Consumers: []string{"search", "cache"},
	})
	if err != nil {
		return err
	}
	defer fanout.Close()
	ended := make(chan error)
	for _, name := range []string{"search", "cache"} {
		go func() { ended <- follow(ctx, fanout, name, apply) }()
	}
	return errors.Join(<-ended, <-ended)
}

// follow reads as one consumer until the context ends.
func follow(ctx context.Context, fanout *cdc.Fanout, name string, apply func(consumer string, change *cdc.Change) error) error {
	consumer, err := fanout.Attach(name, 0)
	if errors.Is(err, cdc.ErrResyncNeeded) { // it was away for too long: the changes from now on, and the table beside them
		if consumer, err = fanout.Join(name); err == nil {
			_, err = fanout.Backfill(ctx, name, cdc.BackfillConfig{Table: "account"})
		}
	}
	if err != nil {
		return err
	}
	defer consumer.Close()
	for {
		transaction, err := consumer.Next(ctx)
		if err != nil {
			return err
		}
		for change, err := range transaction.Changes() {
			if err == nil {
				err = apply(name, change)
			}
			if err != nil {
				return err
			}
		}
		if err := consumer.Ack(transaction.EndLSN); err != nil {
			return err
		}
	}
}
