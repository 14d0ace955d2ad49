package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Next is the next step of a resource's workflow.
type Next string

const (
	// NextAttempt is another attempt, after Wait.
	NextAttempt Next = "attempt"
	// NextRetention is expiry or removal, after Wait.
	NextRetention Next = "retention"
	// NextNone ends the workflow: nothing is due, or the row is gone.
	NextNone Next = "none"
)

// Step is the result of a step.
type Step struct {
	// Next and Wait give the next step and the time until then.
	Next Next          `json:"next"`
	Wait time.Duration `json:"wait,omitempty"`
	// Generation is the row's generation after the step.
	Generation int64 `json:"generation,omitempty"`
	// SyncedGeneration is the newest synced generation.
	SyncedGeneration int64 `json:"synced_generation,omitempty"`
	// State is the row's state after the step; empty where there is no row.
	State deltatype.ResourceState `json:"state,omitempty"`
	// Namespace, Attempt, MaxAttempts, SyncCount and Paused are columns of the row.
	Namespace   string `json:"namespace,omitempty"`
	Attempt     int    `json:"attempt,omitempty"`
	MaxAttempts int    `json:"max_attempts,omitempty"`
	SyncCount   int64  `json:"sync_count,omitempty"`
	Paused      bool   `json:"paused,omitempty"`
	// AwaitsSlot reports whether the row waits for a slot of its limit key.
	AwaitsSlot bool `json:"awaits_slot,omitempty"`
	// AwaitsRoom reports whether the row was given back to dispatchers, because too many attempts of its kind wait for
	// full namespaces.
	AwaitsRoom bool `json:"awaits_room,omitempty"`
	// AwaitsParent reports whether the row waits for a parent that was never synced.
	AwaitsParent bool `json:"awaits_parent,omitempty"`
	// Heals reports whether the resource has degraded and is tried again after Wait, rather than removed.
	Heals bool `json:"heals,omitempty"`
	// Error is the beginning of the row's latest error, unless it is synced.
	Error string `json:"error,omitempty"`
	// Local makes the next attempt a local activity.
	Local bool `json:"local,omitempty"`
	// SearchAttributes is set where the Temporal namespace has Delta's search attributes and the ref does not say so,
	// because the starter of the workflow may not know.
	SearchAttributes bool `json:"search_attributes,omitempty"`
	// Elsewhere is set where the object did not decode here: any worker of the task queue may make the next attempt.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// HandedOver is set where a local activity has not ended the attempt, so that an ordinary one follows at once.
	HandedOver bool `json:"handed_over,omitempty"`
	// failure is set where the attempt has failed, so that Temporal shows it.
	failure *failure
}

// shownTo removes the error where object ids are kept from Temporal, because an error may contain one. Where payloads
// are encoded, a failed activity has no text either, because Temporal stores its message and its step unencoded.
func (s Step) shownTo(ref Ref) Step {
	if ref.HashedID != "" || (ref.Encoded && s.failure != nil) {
		s.Error, s.failure = "", s.failure.withoutText()
	}
	return s
}

// awaitsSlot reports whether a row waits for a slot of its limit key. A dispatcher wakes it.
func awaitsSlot(r *db.Resource) bool { return r.QueuedAt != nil && r.DispatchAt == nil }

// awaitsOthers reports whether a row waits for a slot of its limit key or for a parent. A dispatcher wakes it.
func awaitsOthers(r *db.Resource) bool { return awaitsSlot(r) || r.AwaitsParent() }

// stepOfUnclaimed returns what a row without a due attempt waits for; got is nil where there is no row.
func (a *Activities) stepOfUnclaimed(ctx context.Context, ref Ref, got *db.GetResourceRow) (Step, error) {
	if got == nil {
		return Step{Next: NextNone}, nil
	}
	s, err := a.readUnclaimedStep(ctx, ref, got)
	if s.Next == NextAttempt {
		s.Wait = max(s.Wait, minAttemptWait)
	}
	return s, err
}

const (
	// minAttemptWait is the least wait after an attempt that found nothing to do although something is due. The row may
	// have changed between two statements, or another transaction may have locked it.
	minAttemptWait = 100 * time.Millisecond
	// minClaimWait and maxClaimWait bound the wait for the end of a claim. The execution that closes the claim has a
	// dispatcher look at the row if an attempt is due.
	minClaimWait = time.Second
	maxClaimWait = time.Minute
)

// readUnclaimedStep is stepOf for a row that this execution could not claim, or no longer has.
func (a *Activities) readUnclaimedStep(ctx context.Context, ref Ref, got *db.GetResourceRow) (Step, error) {
	r := &got.Resource
	s := a.stepOf(r, got.Now)
	if s.Next == NextNone {
		return s, nil
	}
	if r.ClaimedUntil != nil {
		open, err := db.New().OpenClaims(ctx, a.Pool, db.OpenClaimsParams{Ids: []int64{r.ID}, WholeKind: true})
		if err != nil {
			return Step{}, fmt.Errorf("reading the claim of %s: %w", ref, err)
		}
		for _, claim := range open {
			s.Wait = max(s.Wait, min(max(claim.ClaimedUntil.Sub(claim.Now), minClaimWait), maxClaimWait))
		}
	}
	if s.Next == NextRetention {
		if isOfBatch(ctx, r) {
			s.Next, s.Wait = NextNone, 0
		}
		return s, nil
	}
	if got.KindPaused {
		// A dispatcher wakes it when its kind is resumed.
		s.Next, s.Paused = NextNone, true
	}
	s.Wait = max(s.Wait, got.SnoozedFor)
	return s, nil
}

// isOfBatch reports whether another workflow, a batch, has the timer for the row's retention. That is possible even
// where the kind has no batches any more.
func isOfBatch(ctx context.Context, r *db.Resource) bool {
	id := WorkflowID(ctx)
	return id != "" && r.WorkflowID != nil && *r.WorkflowID != id
}

// maxShownError bounds the part of an error that enters a history.
const maxShownError = 300

// canHeal reports whether a degraded resource is tried again after retry, rather than removed: delta_heals in SQL.
func canHeal(state deltatype.ResourceState, cause *deltatype.Cause, retry time.Duration) bool {
	isHopeless := cause != nil && *cause == deltatype.CauseHopeless
	return state == deltatype.ResourceStateDegraded && !isHopeless && retry > 0
}

// stepOf derives the next step from a row.
func (a *Activities) stepOf(r *db.Resource, now time.Time) Step {
	s := Step{
		Next:             NextNone,
		Generation:       r.Generation,
		SyncedGeneration: r.SyncedGeneration,
		State:            r.State,
		Namespace:        r.Namespace,
		Attempt:          int(r.Attempt),
		MaxAttempts:      int(r.MaxAttempts),
		SyncCount:        r.SyncCount,
		Paused:           r.Paused,
		AwaitsSlot:       awaitsSlot(r),
		AwaitsParent:     r.AwaitsParent(),
	}
	switch r.State {
	case deltatype.ResourceStateScheduled, deltatype.ResourceStateExpired, deltatype.ResourceStateFailed, deltatype.ResourceStatePending:
		if r.Paused || awaitsOthers(r) {
			return s // a dispatcher wakes it when it is resumed, gets its slot, or its parent is synced
		}
		s.Next = NextAttempt
	case deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted:
		if r.Paused {
			return s // it stays as it is until it is resumed
		}
		if r.IsFinalizing() {
			if awaitsSlot(r) {
				return s
			}
			s.Next = NextAttempt
			break
		}
		if r.DueAt == nil {
			return s
		}
		s.Next = NextRetention
		s.Heals = canHeal(r.State, r.Cause, a.Retention.DegradedRetry)
	case deltatype.ResourceStateUnknown:
		return s
	}
	if r.DueAt != nil {
		s.Wait = max(r.DueAt.Sub(now), 0)
	}
	if n := len(r.Errors); n > 0 && r.State != deltatype.ResourceStateSynced {
		var latest deltatype.AttemptError
		if json.Unmarshal(r.Errors[n-1], &latest) == nil {
			s.Error = shorten.Text(latest.Error, maxShownError)
			s.Elsewhere = s.Next == NextAttempt && latest.Attempt == 0
		}
	}
	return s
}
