package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// SettledInput names a run whose listing was recorded.
type SettledInput struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	Pass         string `json:"pass"`
}

// SettledResult says what became of what a run informed.
type SettledResult struct {
	// Degraded counts resources that degraded; Named has the first of them.
	Degraded int64    `json:"degraded,omitempty"`
	Named    []string `json:"named,omitempty"`
}

const (
	firstSettledPoll = 200 * time.Millisecond
	maxSettledPoll   = 5 * time.Second
)

// Settled waits until all that a run listed has settled: synced, degraded, deleted or paused. Each look ends at the first
// resource that has not. A worker that stops leaves the wait to another one: what is waited for may well be settled by others only.
func (a *Activities) Settled(ctx context.Context, in SettledInput) (SettledResult, error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return SettledResult{}, err
	}
	ctx, unlink := a.untilStopped(ctx)
	defer unlink()
	defer a.heartbeat(ctx)()
	stopping := workerStop(ctx)
	for poll := firstSettledPoll; ; poll = min(2*poll, maxSettledPoll) {
		open, err := db.New().HasUnsettled(ctx, a.Pool, db.HasUnsettledParams{Kind: in.Kind, Pass: in.Pass})
		if err != nil {
			return SettledResult{}, fmt.Errorf("waiting for what was informed of kind %s: %w", in.Kind, err)
		}
		if !open {
			break
		}
		select {
		case <-ctx.Done():
			return SettledResult{}, ctx.Err()
		case <-stopping:
			return SettledResult{}, errStopping("another one goes on waiting")
		case <-time.After(poll):
		}
	}
	degraded, err := db.New().DegradedOfListing(ctx, a.Pool, db.DegradedOfListingParams{Kind: in.Kind, Pass: in.Pass, Most: maxRefusedShown})
	if err != nil {
		return SettledResult{}, fmt.Errorf("reading what degraded of kind %s: %w", in.Kind, err)
	}
	var result SettledResult
	for _, row := range degraded {
		result.Degraded = row.Total
		result.Named = append(result.Named, row.ObjectID)
	}
	return result, a.forget(ctx, in.Pass)
}
