package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
)

// LapseInput names the resource and the generation that has rested.
type LapseInput struct {
	Ref
	Generation int64 `json:"generation"`
}

// Lapse ends the rest of a resource that is due: it expires where its namespace has an expiry and it is synced,
// otherwise its row is removed. A row that is not due, or not of that generation, is left alone.
func (a *Activities) Lapse(ctx context.Context, in LapseInput) (Step, error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return Step{}, err
	}
	expired, err := db.New().ExpireResource(ctx, a.Pool, db.ExpireResourceParams{
		Kind: in.Kind, ObjectID: in.ObjectID, Generation: in.Generation,
		DefaultExpiry: a.Rest.Expiry, Net: DispatchNet,
	})
	if err == nil {
		return step(expired.Resource, expired.Now), nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return Step{}, fmt.Errorf("expiring %s/%s: %w", in.Kind, in.ObjectID, err)
	}

	_, err = db.New().RemoveResource(ctx, a.Pool, db.RemoveResourceParams{
		Kind: in.Kind, ObjectID: in.ObjectID, Generation: in.Generation,
	})
	if err == nil {
		return Step{Next: NextNone}, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return Step{}, fmt.Errorf("removing %s/%s: %w", in.Kind, in.ObjectID, err)
	}

	got, found, err := a.get(ctx, in.Ref)
	if err != nil || !found {
		return Step{Next: NextNone}, err
	}
	return step(got.Resource, got.Now), nil
}
