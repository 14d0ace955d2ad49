package cdc_test

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// copyAccounts reads a table beside the stream, from where an earlier process has come to. save keeps what is made of a
// transaction in one transaction of its own.
func copyAccounts(ctx context.Context, config *pgx.ConnConfig, kept cdc.LSN, token string,
	apply func(*cdc.Change) error, save func(kept cdc.LSN, token string) error,
) error {
	stream, err := cdc.Open(ctx, cdc.Config{
		Conn: config, Slot: "accounts", Publications: []string{"accounts"}, Start: kept, OnlyAcknowledged: true,
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	backfill, err := stream.Backfill(ctx, cdc.BackfillConfig{Table: "account", Token: token})
	if err != nil {
		return err
	}
	for {
		transaction, err := stream.Next(ctx)
		if err != nil {
			return err
		}
		for change, err := range transaction.Changes() {
			if err != nil {
				return err
			}
			if err := apply(change); err != nil { // cdc.KindRead is the whole row, whether it was there or not
				return err
			}
		}
		if err := save(transaction.EndLSN, backfill.Token()); err != nil {
			return err
		}
		if err := stream.Ack(transaction.EndLSN); err != nil {
			return err
		}
		select {
		case <-backfill.Done():
			return backfill.Err() // nil: all was read. Others go on with the stream here.
		default:
		}
	}
}
