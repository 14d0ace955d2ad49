package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// LapseInput names the resource and the generation that has rested.
type LapseInput struct {
	Ref
	Generation int64 `json:"generation"`
}

// Lapse ends the rest of a resource that is due: it expires where its namespace has an expiry and it is synced,
// otherwise its row is removed. The settings that hold now decide: where they keep the row for longer than those that
// its rest began with, it rests on. A row that is not due, or not of that generation, is left alone.
func (a *Activities) Lapse(ctx context.Context, in LapseInput) (Step, error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return Step{}, err
	}
	ref, err := a.resolve(ctx, in.Ref)
	if err != nil {
		return Step{}, err
	}
	in.Ref = ref
	got, found, err := a.get(ctx, in.Ref)
	if err != nil || !found {
		return Step{Next: NextNone}, err
	}
	r := got.Resource
	if a.isOfBatch(ctx, r) {
		s := step(r, got.Now)
		s.Next, s.Wait = NextNone, 0
		return s, nil
	}
	if r.Generation != in.Generation || r.DueAt == nil || r.DueAt.After(got.Now) {
		return step(r, got.Now), nil
	}

	if r.State == deltatype.ResourceStateSynced {
		net := DispatchNet
		if a.BatchSize > 1 {
			net = 0 // a batch takes it from here
		}
		expired, err := db.New().ExpireResource(ctx, a.Pool, db.ExpireResourceParams{
			Kind: in.Kind, ObjectID: in.ObjectID, Generation: in.Generation,
			DefaultExpiry: a.Rest.Expiry, Net: net,
		})
		if err == nil {
			s := step(expired.Resource, expired.Now)
			if a.BatchSize > 1 {
				s.Next = NextNone
				a.redispatched()
			}
			return s, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return Step{}, fmt.Errorf("expiring %s: %w", in.Ref, err)
		}
	}

	_, err = db.New().RemoveResource(ctx, a.Pool, db.RemoveResourceParams{
		Kind: in.Kind, ObjectID: in.ObjectID, Generation: in.Generation, Namespace: r.Namespace,
		DefaultSyncedRetention: a.Rest.SyncedRetention, DefaultDegradedRetention: a.Rest.DegradedRetention,
		DefaultDeletedRetention: a.Rest.DeletedRetention,
	})
	if err == nil {
		return Step{Next: NextNone}, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return Step{}, fmt.Errorf("removing %s: %w", in.Ref, err)
	}

	prolonged, err := db.New().ProlongRest(ctx, a.Pool, db.ProlongRestParams{
		Kind: in.Kind, ObjectID: in.ObjectID, Generation: in.Generation, Namespace: r.Namespace,
		DefaultSyncedRetention: a.Rest.SyncedRetention, DefaultDegradedRetention: a.Rest.DegradedRetention,
		DefaultDeletedRetention: a.Rest.DeletedRetention, Grace: DueGrace,
	})
	if err == nil {
		return step(prolonged.Resource, prolonged.Now), nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return Step{}, fmt.Errorf("prolonging the rest of %s: %w", in.Ref, err)
	}

	// It changed meanwhile.
	if got, found, err = a.get(ctx, in.Ref); err != nil || !found {
		return Step{Next: NextNone}, err
	}
	return step(got.Resource, got.Now), nil
}
