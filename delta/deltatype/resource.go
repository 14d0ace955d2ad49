package deltatype

import (
	"bytes"
	"slices"
	"time"
)

// ResourceRow is the row of one resource. Times are in UTC.
type ResourceRow struct {
	// ID is the row's own number. It ascends, with gaps.
	ID int64
	// ObjectID is the object's ID.
	ObjectID string
	// ObjectKind is the object's kind.
	ObjectKind string
	// Namespace groups resources that share expiry, retention and worker limits.
	Namespace string
	// State is where the resource stands in its lifecycle.
	State ResourceState
	// Cause is why the resource was last degraded or deleted; empty if it never was.
	Cause Cause
	// Finalized reports whether the Finalizer of a deleted resource's kind has succeeded. Until then the row is kept. It is nil if the kind has none,
	// and has no meaning in other states.
	Finalized *bool
	// Generation counts sync episodes. It rises when the object or its options change, when the resource expires, and
	// when a sync is asked for again.
	Generation int64
	// SyncedGeneration is the latest synced generation; 0 if none was.
	SyncedGeneration int64
	// Revision is the object's own version, which orders informs; nil if it has none.
	Revision *int64
	// ObjectVersion is the version of the object's Go type that wrote EncodedObject; 0 if the type has no version.
	ObjectVersion int
	// Shard is the shard that lists the object; empty for none.
	Shard string
	// LimitKey names the limit that the object's calls of Work share with other objects of the same key; empty for none.
	LimitKey string
	// Parents are the resources that must be synced once before this one is worked, as its object says; nil for none.
	Parents []Ref
	// AwaitedParents are those of Parents that were not synced yet at the last check; nil from the first call of Work on. If the resource is due and has no
	// DispatchAt, it waits for the first of them.
	AwaitedParents []Ref
	// SyncCount counts syncs over the life of the row: 1 after the object was created outside, more after updates. Within Work it does not count
	// the current sync.
	SyncCount int64
	// Attempt counts the attempts within the generation: 0 before the first. It does not distinguish created from updated; SyncCount does. In Delta on
	// River, Attempt does, because it counts over the life of the row.
	Attempt int
	// Snoozes counts the calls of Work within the generation that were snoozed; they do not count as attempts.
	Snoozes int
	// MaxAttempts is how many attempts there are before the resource is degraded.
	MaxAttempts int
	// Priority is how urgent the resource's latest generation is: 1 is the most urgent, 5 the least.
	Priority int
	// Paused is set if the resource is not worked until it is resumed.
	Paused bool
	// EncodedObject is the object as JSON; in its stored form ([IsEncoded]) if the client's ObjectCodec does not decode it, or is missing.
	EncodedObject []byte
	// Hash identifies the content of EncodedObject. If the client has an ObjectCodec, it is keyed.
	Hash []byte
	// Metadata is the user's JSON object.
	Metadata []byte
	// Tags are the user's labels.
	Tags []string
	// Errors are the errors of the latest failed attempts, oldest first: at most 25, each cut after 4 KiB, and its Trace after
	// 16 KiB.
	Errors []AttemptError
	// CreatedAt is when the row was created.
	CreatedAt time.Time
	// GenerationAt is when the transaction that started the generation began: an inform, the expiry or a command.
	GenerationAt time.Time
	// AttemptedAt is when the latest attempt began; nil before the first.
	AttemptedAt *time.Time
	// SyncedAt is when the resource was last synced; nil if it never was.
	SyncedAt *time.Time
	// ExternalCreatedAt is when the object was created outside; nil if unknown.
	ExternalCreatedAt *time.Time
	// ListedAt is when an informer last listed the resource while it was degraded, or deleted by Work or a command; nil if none did. Retention
	// counts from it. It is not written again before a tenth of the retention has passed.
	ListedAt *time.Time
	// DueAt is when the lifecycle takes its next step by itself: the next attempt, expiry or removal. It is nil while an
	// attempt runs, and if there is no next step, as for a synced resource that is kept for ever.
	DueAt *time.Time
	// DispatchAt is when a dispatcher reads the resource, to wake its workflow; nil if there is no next step.
	DispatchAt *time.Time
	// ClaimedUntil is when the claim of a worker ends unless it is renewed: until then, only this worker may call Work for the resource. Nil if there is no claim.
	ClaimedUntil *time.Time
	// WorkflowID names the Temporal workflow of the resource: a batch, or its own once that has claimed it; empty before.
	WorkflowID string
	// HashedID replaces ObjectID in Temporal if object ids are hidden from it; empty otherwise.
	HashedID string
}

// Clone returns a deep copy of the row.
func (r *ResourceRow) Clone() *ResourceRow {
	c := *r
	c.Finalized, c.Revision = clonePointer(r.Finalized), clonePointer(r.Revision)
	c.EncodedObject, c.Hash, c.Metadata = bytes.Clone(r.EncodedObject), bytes.Clone(r.Hash), bytes.Clone(r.Metadata)
	c.Parents, c.AwaitedParents = slices.Clone(r.Parents), slices.Clone(r.AwaitedParents)
	c.Tags, c.Errors = slices.Clone(r.Tags), slices.Clone(r.Errors)
	c.AttemptedAt, c.SyncedAt, c.ExternalCreatedAt, c.ListedAt = clonePointer(r.AttemptedAt), clonePointer(r.SyncedAt), clonePointer(r.ExternalCreatedAt), clonePointer(r.ListedAt)
	c.DueAt, c.DispatchAt, c.ClaimedUntil = clonePointer(r.DueAt), clonePointer(r.DispatchAt), clonePointer(r.ClaimedUntil)
	return &c
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// AttemptError is the error of one attempt.
type AttemptError struct {
	// At is when the error occurred.
	At time.Time `json:"at"`
	// Attempt is the attempt's number within its generation; 0 if the resource's workflow could not be started,
	// or its object did not decode.
	Attempt int `json:"attempt"`
	// Error is the text of the error, or the value of a panic.
	Error string `json:"error"`
	// Trace is the stack of a panic; empty otherwise.
	Trace string `json:"trace"`
}

// ResourceState is where a resource stands in its lifecycle.
type ResourceState string

const (
	// ResourceStateScheduled means that the resource waits for its first attempt in this generation.
	ResourceStateScheduled ResourceState = "scheduled"
	// ResourceStatePending means that a worker is working on the resource.
	ResourceStatePending ResourceState = "pending"
	// ResourceStateSynced means that the object outside matches the resource.
	ResourceStateSynced ResourceState = "synced"
	// ResourceStateFailed means that the resource waits for a retry after a failed attempt.
	ResourceStateFailed ResourceState = "failed"
	// ResourceStateDegraded means that the attempts are used up, or hopeless: Cause tells them apart.
	ResourceStateDegraded ResourceState = "degraded"
	// ResourceStateExpired means that the last sync is too old, and the resource waits for another one.
	ResourceStateExpired ResourceState = "expired"
	// ResourceStateDeleted means that the object outside is gone; the row is kept for its retention period.
	ResourceStateDeleted ResourceState = "deleted"
	// ResourceStateUnknown is the state of a row that Delta did not write.
	ResourceStateUnknown ResourceState = "unknown"
)

// Cause is why a resource is degraded or deleted.
type Cause string

const (
	// CauseExhausted means that the attempts of a degraded resource are used up. It is retried slowly, and when an informer lists it.
	CauseExhausted Cause = "exhausted"
	// CauseHopeless means that Work said that further attempts of a degraded resource are hopeless (ResourceDegrade).
	CauseHopeless Cause = "hopeless"
	// CauseUnlisted means that a complete listing no longer had the deleted resource.
	CauseUnlisted Cause = "unlisted"
	// CauseWork means that Work said that the object is gone outside (ResourceDelete).
	CauseWork Cause = "work"
	// CauseCommand means that a command deleted the resource.
	CauseCommand Cause = "command"
)

// ResourceStates returns all states.
func ResourceStates() []ResourceState {
	return []ResourceState{
		ResourceStateScheduled,
		ResourceStatePending,
		ResourceStateSynced,
		ResourceStateFailed,
		ResourceStateDegraded,
		ResourceStateExpired,
		ResourceStateDeleted,
		ResourceStateUnknown,
	}
}
