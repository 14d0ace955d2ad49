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

// Next is what the lifecycle of a resource does after a step.
type Next string

const (
	// NextAttempt is another attempt, after Wait.
	NextAttempt Next = "attempt"
	// NextRetention is expiry or removal, after Wait.
	NextRetention Next = "retention"
	// NextNone ends the lifecycle: the resource rests for good, or is no more.
	NextNone Next = "none"
)

// Step is what a step came to.
type Step struct {
	// Next and Wait say how the lifecycle goes on.
	Next Next          `json:"next"`
	Wait time.Duration `json:"wait,omitempty"`
	// Generation is that of the row after the step.
	Generation int64 `json:"generation,omitempty"`
	// SyncedGeneration is the newest that was synced.
	SyncedGeneration int64 `json:"synced_generation,omitempty"`
	// State is that of the row after the step; empty where there is no row.
	State deltatype.ResourceState `json:"state,omitempty"`
	// Namespace, Attempt, MaxAttempts, SyncCount and Paused are those of the row.
	Namespace   string `json:"namespace,omitempty"`
	Attempt     int    `json:"attempt,omitempty"`
	MaxAttempts int    `json:"max_attempts,omitempty"`
	SyncCount   int64  `json:"sync_count,omitempty"`
	Paused      bool   `json:"paused,omitempty"`
	// AwaitsSlot says that the row waits for a slot of its limit key.
	AwaitsSlot bool `json:"awaits_slot,omitempty"`
	// AwaitsParent says that the row waits for a parent, which was never synced.
	AwaitsParent bool `json:"awaits_parent,omitempty"`
	// Heals says that the resource has degraded, and is tried again after Wait rather than removed.
	Heals bool `json:"heals,omitempty"`
	// Error is the beginning of the latest error of a row that is not synced.
	Error string `json:"error,omitempty"`
	// Local has the next attempt made by a local activity.
	Local bool `json:"local,omitempty"`
	// SearchAttributes is set where the Temporal namespace has Delta's and the ref does not say so: what started the workflow may not know.
	SearchAttributes bool `json:"search_attributes,omitempty"`
	// Elsewhere says that the object did not decode here: the next attempt is for any worker of the task queue.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// HandedOver says that a local activity has not ended the attempt: an ordinary one is to follow at once.
	HandedOver bool `json:"handed_over,omitempty"`
	// failure is set where the attempt has failed: Temporal is to show that.
	failure *failure
}

// shownTo leaves the error out where object ids are kept from Temporal: it may well name one. A failed activity has no text where payloads are
// encoded, either: its message and its step would be stored as they are.
func (s Step) shownTo(ref Ref) Step {
	if ref.HashedID != "" || (ref.Encoded && s.failure != nil) {
		s.Error, s.failure = "", s.failure.withoutText()
	}
	return s
}

// awaitsSlot reports whether a row waits for a slot of its limit key: a dispatcher wakes it.
func awaitsSlot(r *db.Resource) bool { return r.QueuedAt != nil && r.DispatchAt == nil }

// awaitsOthers reports whether a row waits for a slot of its limit key, or for a parent: a dispatcher wakes it.
func awaitsOthers(r *db.Resource) bool { return awaitsSlot(r) || r.AwaitsParent() }

// stepOfUnclaimed says what a row that offers no attempt waits for; nil is one that is not there.
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
	// hotLoop is the least wait after an attempt that found nothing to do, although something is due: the row changed between two
	// statements, say, or is locked by others.
	minAttemptWait = 100 * time.Millisecond
	// minClaimWait and maxClaimWait bound the wait for the end of a claim. The execution that closes it makes the row due for a dispatcher, if
	// something is due.
	minClaimWait = time.Second
	maxClaimWait = time.Minute
)

// readUnclaimedStep is stepOf for a row that this execution could not claim, or has let go of.
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

// isOfBatch reports whether another workflow, a batch, attends to the row's rest. That may be so where the kind has no batches any more.
func isOfBatch(ctx context.Context, r *db.Resource) bool {
	id := WorkflowID(ctx)
	return id != "" && r.WorkflowID != nil && *r.WorkflowID != id
}

// maxShownError bounds what of an error enters a history.
const maxShownError = 300

// canHeal reports whether a resource is tried again after retry because it has degraded, rather than removed: delta_heals in SQL.
func canHeal(state deltatype.ResourceState, cause *deltatype.Cause, retry time.Duration) bool {
	isHopeless := cause != nil && *cause == deltatype.CauseHopeless
	return state == deltatype.ResourceStateDegraded && !isHopeless && retry > 0
}

// stepOf reads off a row how its lifecycle goes on.
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
			return s // a dispatcher wakes it when it is resumed, when the slot is its own, or when its parent was synced
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
