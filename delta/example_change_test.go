package delta_test

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
)

// Bill is a kind whose changes are logged.
type Bill struct {
	Number string `json:"number"`
	Cents  int64  `json:"cents"`
}

func (i Bill) ID() string   { return i.Number }
func (i Bill) Kind() string { return "bill" }

func (i Bill) Settings() delta.ObjectSettings { return delta.ObjectSettings{Log: true} }

var _ delta.ObjectWithSettings = Bill{}

// followBills handles each change of a bill at least once, from a position that the caller has kept.
func followBills(ctx context.Context, client *delta.Client, from delta.ChangePosition, handle func(*delta.Change) error) (delta.ChangePosition, error) {
	for change, err := range client.Changes(ctx, from, "bill") {
		if err != nil {
			return from, err
		}
		if err := handle(change); err != nil {
			return from, err
		}
		from = change.Position
	}
	return from, nil // ctx has ended
}

// sumBills keeps a sum in a table of its own, in which each change counts exactly once.
func sumBills(ctx context.Context, client *delta.Client, pool *pgxpool.Pool) error {
	return client.ConsumeChanges(ctx, delta.ChangeConsumer{
		Name:  "sums",
		Kinds: []string{"bill"},
		Handle: func(ctx context.Context, batch *delta.ChangeBatch) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				for _, change := range batch.Changes {
					before, after := Bill{}, Bill{}
					if change.Before != nil {
						if err := json.Unmarshal(change.Before, &before); err != nil {
							return err
						}
					}
					switch change.Type {
					case delta.ChangeCreated, delta.ChangeUpdated:
						if err := json.Unmarshal(change.After, &after); err != nil {
							return err
						}
					case delta.ChangeDeleted: // what it was is taken off
					default:
						continue
					}
					if _, err := tx.Exec(ctx, "UPDATE sums SET cents = cents + $1", after.Cents-before.Cents); err != nil {
						return err
					}
				}
				return batch.SaveTx(ctx, tx)
			})
		},
	})
}
