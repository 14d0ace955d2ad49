package cdc_test

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// copyAccounts reads a table beside the stream, and continues where an earlier process has stopped. save commits the
// position, the token and the results of a transaction's changes together.
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
			if err := apply(change); err != nil { // cdc.KindRead is the whole row, whether the copy has it or not
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
			return backfill.Err() // nil if everything was read. A real program would go on with the stream.
		default:
		}
	}
}
