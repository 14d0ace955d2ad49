package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/backoff"
)

// AwaitInput names a run with a recorded listing.
type AwaitInput struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	Pass         string `json:"pass"`
}

// AwaitResult counts the degraded resources of a run.
type AwaitResult struct {
	// Degraded counts resources that degraded; Named has the first of them.
	Degraded int64    `json:"degraded,omitempty"`
	Named    []string `json:"named,omitempty"`
}

const (
	minAwaitPoll = 200 * time.Millisecond
	maxAwaitPoll = 5 * time.Second
)

// AwaitSettled waits until each resource that a run listed has settled: synced, degraded, deleted, paused, or waiting
// for a parent that nothing will sync. Each look goes on from the first resource that had not settled. A worker that
// stops leaves the wait to another one, because the resources may be settled by other workers only.
func (a *Activities) AwaitSettled(ctx context.Context, in AwaitInput) (AwaitResult, error) {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return AwaitResult{}, err
	}
	ctx, unlink := a.untilStopped(ctx)
	defer unlink()
	defer a.startHeartbeat(ctx)()
	stopping := workerStop(ctx)
	from := ""
	for polls := backoff.New(minAwaitPoll, maxAwaitPoll); ; {
		unsettled, err := db.New().FirstUnsettled(ctx, a.Pool, db.FirstUnsettledParams{Kind: in.Kind, Pass: in.Pass, FromObjectID: from})
		if isNoRows(err) {
			break
		}
		if err != nil {
			return AwaitResult{}, fmt.Errorf("waiting for the informed resources of kind %s: %w", in.Kind, err)
		}
		from = unsettled.ObjectID
		if unsettled.AwaitsParent {
			blocked, err := a.isBlocked(ctx, in.Kind, unsettled)
			if err != nil {
				return AwaitResult{}, err
			}
			if blocked {
				from += "\x01" // the next one: no id has a control character
				continue
			}
		}
		touch := db.TouchListingParams{Pass: in.Pass, ObjectID: from, Older: ListingsKept / 2}
		if err := db.New().TouchListing(ctx, a.Pool, touch); err != nil {
			return AwaitResult{}, fmt.Errorf("noting that a run of kind %s is waited for: %w", in.Kind, err)
		}
		select {
		case <-ctx.Done():
			return AwaitResult{}, ctx.Err()
		case <-stopping:
			return AwaitResult{}, errStopping("another one goes on waiting")
		case <-time.After(polls.Delay()):
		}
	}
	degraded, err := db.New().DegradedOfListing(ctx, a.Pool, db.DegradedOfListingParams{Kind: in.Kind, Pass: in.Pass, Most: maxRefusedShown, HashIds: a.HashObjectIDs})
	if err != nil {
		return AwaitResult{}, fmt.Errorf("reading the degraded resources of kind %s: %w", in.Kind, err)
	}
	var result AwaitResult
	for _, row := range degraded {
		result.Degraded = row.Total
		result.Named = append(result.Named, row.Name)
	}
	return result, nil
}

// isBlocked reports whether a resource waits for a parent that nothing will sync.
func (a *Activities) isBlocked(ctx context.Context, kind string, row db.FirstUnsettledRow) (bool, error) {
	awaited, err := db.ReadAwaited(ctx, a.Pool, row.AwaitedParents)
	if err != nil {
		return false, fmt.Errorf("reading the parents that %s/%s waits for: %w", kind, row.ObjectID, err)
	}
	found := awaited.Find(deltatype.Ref{Kind: kind, ObjectID: row.ObjectID}, row.AwaitedParents)
	return found != nil && !found.IsOnItsWay(), nil
}

// ForgetListing removes the recorded listing once the result of AwaitSettled has arrived. Before that, AwaitSettled may
// run again.
func (a *Activities) ForgetListing(ctx context.Context, in AwaitInput) error {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return err
	}
	return a.removeListing(ctx, in.Pass)
}
