package db

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Row returns the row as the public type: every field, times in UTC.
func (r *Resource) Row() (*deltatype.ResourceRow, error) {
	row := &deltatype.ResourceRow{
		ID:                r.ID,
		ObjectID:          r.ObjectID,
		ObjectKind:        r.Kind,
		Namespace:         r.Namespace,
		State:             r.State,
		Generation:        r.Generation,
		SyncedGeneration:  r.SyncedGeneration,
		SyncCount:         r.SyncCount,
		Revision:          r.Revision,
		ObjectVersion:     int(r.ObjectVersion),
		Attempt:           int(r.Attempt),
		Snoozes:           int(r.Snoozes),
		MaxAttempts:       int(r.MaxAttempts),
		Priority:          int(r.Priority),
		Finalized:         r.Finalized,
		Paused:            r.Paused,
		EncodedObject:     r.Object,
		Hash:              r.Hash,
		Metadata:          r.Metadata,
		Tags:              r.Tags,
		CreatedAt:         r.CreatedAt.UTC(),
		GenerationAt:      r.GenerationAt.UTC(),
		AttemptedAt:       UTC(r.AttemptedAt),
		SyncedAt:          UTC(r.SyncedAt),
		ExternalCreatedAt: UTC(r.ExternalCreatedAt),
		ListedAt:          UTC(r.ListedAt),
		DueAt:             UTC(r.DueAt),
		DispatchAt:        UTC(r.DispatchAt),
		ClaimedUntil:      UTC(r.ClaimedUntil),
	}
	if r.Cause != nil {
		row.Cause = *r.Cause
	}
	if r.WorkflowID != nil {
		row.WorkflowID = *r.WorkflowID
	}
	if r.HashedID != nil {
		row.HashedID = *r.HashedID
	}
	if r.Shard != nil {
		row.Shard = *r.Shard
	}
	if r.LimitKey != nil {
		row.LimitKey = *r.LimitKey
	}
	row.Parents, row.AwaitedParents = parseRefs(r.Parents), parseRefs(r.AwaitedParents)
	for i, encoded := range r.Errors {
		var attempt deltatype.AttemptError
		if err := json.Unmarshal(encoded, &attempt); err != nil {
			return nil, fmt.Errorf("resource %s/%s: errors[%d]: %w", r.Kind, r.ObjectID, i+1, err)
		}
		attempt.At = attempt.At.UTC()
		row.Errors = append(row.Errors, attempt)
	}
	return row, nil
}

// IsFinalizing reports whether Finalize has to succeed before the row may be removed.
func (r *Resource) IsFinalizing() bool {
	return r.State == deltatype.ResourceStateDeleted && r.Finalized != nil && !*r.Finalized
}

// IsWorked reports whether the current generation is being worked (delta_is_worked).
func (r *Resource) IsWorked() bool {
	return r.State == deltatype.ResourceStatePending || (r.IsFinalizing() && r.DueAt == nil)
}

// WantsSlot reports whether a dispatcher that leases the row expects a call of Work (delta_wants_slot).
func (r *Resource) WantsSlot(now time.Time) bool {
	return r.IsWorked() || (r.DueAt != nil && !r.DueAt.After(now) && (r.State != deltatype.ResourceStateDeleted || r.IsFinalizing()))
}

// UTC returns a time in UTC; nil stays nil.
func UTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// toResource returns the row that was written for an object, without the columns that were sent.
func (r *InformResourceRow) toResource() Resource {
	return Resource{
		ID:                r.ID,
		Generation:        r.Generation,
		SyncedGeneration:  r.SyncedGeneration,
		SyncCount:         r.SyncCount,
		Revision:          r.Revision,
		ObjectVersion:     r.ObjectVersion,
		Shard:             r.Shard,
		LimitKey:          r.LimitKey,
		WrittenBy:         r.WrittenBy,
		InformedBy:        r.InformedBy,
		CreatedAt:         r.CreatedAt,
		GenerationAt:      r.GenerationAt,
		AttemptedAt:       r.AttemptedAt,
		SyncedAt:          r.SyncedAt,
		ExternalCreatedAt: r.ExternalCreatedAt,
		ListedAt:          r.ListedAt,
		DueAt:             r.DueAt,
		DispatchAt:        r.DispatchAt,
		State:             r.State,
		Cause:             r.Cause,
		Finalized:         r.Finalized,
		Attempt:           r.Attempt,
		Snoozes:           r.Snoozes,
		MaxAttempts:       r.MaxAttempts,
		Priority:          r.Priority,
		Paused:            r.Paused,
		Claim:             r.Claim,
		ClaimedUntil:      r.ClaimedUntil,
		HashedID:          r.HashedID,
		Kind:              r.Kind,
		ObjectID:          r.ObjectID,
		Namespace:         r.Namespace,
		WorkflowID:        r.WorkflowID,
		Metadata:          r.Metadata,
		Tags:              r.Tags,
		Errors:            r.Errors,
		Parents:           r.Parents,
		AwaitedParents:    r.AwaitedParents,
	}
}
