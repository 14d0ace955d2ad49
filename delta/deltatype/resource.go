package deltatype

import (
	"bytes"
	"slices"
	"time"
)

// ResourceRow is everything that Postgres keeps of one resource. Times are in UTC.
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
	// Cause is why the resource degraded or was deleted, when it did so last; empty if it never did.
	Cause Cause
	// Finalized is for a deleted resource whose kind has a Finalizer: whether that has succeeded. Until then the row is kept. Nil where
	// the kind has none, and without meaning in other states.
	Finalized *bool
	// Generation counts sync episodes. It rises when the object or its options change, when the resource expires, and
	// when it is asked for again.
	Generation int64
	// SyncedGeneration is the newest generation that was synced; 0 if none was.
	SyncedGeneration int64
	// Revision is what the object says of its own version, which orders informs; nil where it says nothing.
	Revision *int64
	// ObjectVersion is the version of the object's Go type that wrote EncodedObject; 0 where the type says none.
	ObjectVersion int
	// Shard is the part of the outside world that lists the object; empty for none.
	Shard string
	// LimitKey is what the object's calls of Work are limited by, together with those of others that have it; empty for none.
	LimitKey string
	// Parents are the resources that have to be synced once before this one is worked, as its object says; nil for none.
	Parents []Ref
	// AwaitedParents are those of them that were not seen synced yet, when it was last looked at; nil from the first call of Work on. The resource waits for the first of them
	// where it is due and has no DispatchAt.
	AwaitedParents []Ref
	// SyncCount counts syncs over the life of the row: 1 after the object was created outside, more after updates. Within Work it does not count
	// the sync that Work is called for.
	SyncCount int64
	// Attempt counts the tries within the generation: 0 before the first. It does not tell created from updated, as it does in Delta on River, where
	// it counts over the life of the row: SyncCount does.
	Attempt int
	// Snoozes counts the calls of Work within the generation that put themselves off; they do not count as tries.
	Snoozes int
	// MaxAttempts is how many tries there are before the resource is degraded.
	MaxAttempts int
	// Priority is how urgent the resource's latest generation is: 1 is the most urgent, 5 the least.
	Priority int
	// Paused tells that the resource is not worked on until it is resumed.
	Paused bool
	// EncodedObject is the object as JSON.
	EncodedObject []byte
	// Hash identifies the content of EncodedObject.
	Hash []byte
	// Metadata is a JSON object of the user's.
	Metadata []byte
	// Tags are the user's labels.
	Tags []string
	// Errors are those of the latest attempts that failed, oldest first: 25 at most, each cut after 4 KiB, and its Trace after
	// 16 KiB.
	Errors []AttemptError
	// CreatedAt is when the row was made.
	CreatedAt time.Time
	// GenerationAt is when the transaction began that made the generation: the inform, the expiry or the command.
	GenerationAt time.Time
	// AttemptedAt is when the latest attempt began; nil before the first.
	AttemptedAt *time.Time
	// SyncedAt is when the resource was last synced; nil if it never was.
	SyncedAt *time.Time
	// ExternalCreatedAt is when the object was created outside; nil if unknown.
	ExternalCreatedAt *time.Time
	// ListedAt is when an informer listed the resource last while it was degraded, or deleted by Work or a command; nil if none did. Its row
	// is kept for its retention after that. It is not written again before a tenth of that has passed.
	ListedAt *time.Time
	// DueAt is when the lifecycle takes its next step by itself: the next attempt, expiry or removal. Nil while an
	// attempt runs, and where there is no next step, as for one that is synced and kept for ever.
	DueAt *time.Time
	// DispatchAt is when a dispatcher looks at the resource, to wake its workflow; nil where there is no next step.
	DispatchAt *time.Time
	// ClaimedUntil is until when a worker alone may call Work for the resource, if it does not renew its claim; nil where none may.
	ClaimedUntil *time.Time
	// WorkflowID names the Temporal workflow that the resource was given to: a batch, or its own once that has claimed it; empty before.
	WorkflowID string
	// HashedID stands for ObjectID in Temporal, where object ids are kept from it; empty otherwise.
	HashedID string
}

// Clone returns a copy that shares nothing with the row.
func (r *ResourceRow) Clone() *ResourceRow {
	c := *r
	c.Finalized, c.Revision = cloned(r.Finalized), cloned(r.Revision)
	c.EncodedObject, c.Hash, c.Metadata = bytes.Clone(r.EncodedObject), bytes.Clone(r.Hash), bytes.Clone(r.Metadata)
	c.Parents, c.AwaitedParents = slices.Clone(r.Parents), slices.Clone(r.AwaitedParents)
	c.Tags, c.Errors = slices.Clone(r.Tags), slices.Clone(r.Errors)
	c.AttemptedAt, c.SyncedAt, c.ExternalCreatedAt, c.ListedAt = cloned(r.AttemptedAt), cloned(r.SyncedAt), cloned(r.ExternalCreatedAt), cloned(r.ListedAt)
	c.DueAt, c.DispatchAt, c.ClaimedUntil = cloned(r.DueAt), cloned(r.DispatchAt), cloned(r.ClaimedUntil)
	return &c
}

func cloned[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// AttemptError is the error of one attempt.
type AttemptError struct {
	// At is when it occurred.
	At time.Time `json:"at"`
	// Attempt is the attempt's number within its generation; 0 where the resource's workflow could not be started,
	// or its object did not decode.
	Attempt int `json:"attempt"`
	// Error is the error's text, or the value of a panic.
	Error string `json:"error"`
	// Trace is the stack of a panic; empty otherwise.
	Trace string `json:"trace"`
}

// ResourceState is where a resource stands in its lifecycle.
type ResourceState string

const (
	// ResourceStateScheduled waits for its first attempt in this generation.
	ResourceStateScheduled ResourceState = "scheduled"
	// ResourceStatePending is being worked on.
	ResourceStatePending ResourceState = "pending"
	// ResourceStateSynced was brought in line.
	ResourceStateSynced ResourceState = "synced"
	// ResourceStateFailed waits to be tried again after a failed attempt.
	ResourceStateFailed ResourceState = "failed"
	// ResourceStateDegraded has used up its attempts, or is hopeless: Cause says which.
	ResourceStateDegraded ResourceState = "degraded"
	// ResourceStateExpired was synced too long ago and waits to be synced again.
	ResourceStateExpired ResourceState = "expired"
	// ResourceStateDeleted is gone outside; the row is kept for its retention period.
	ResourceStateDeleted ResourceState = "deleted"
	// ResourceStateUnknown is the state of a row that Delta did not write itself.
	ResourceStateUnknown ResourceState = "unknown"
)

// Cause is why a resource is degraded or deleted.
type Cause string

const (
	// CauseExhausted is that of a degraded resource whose attempts were used up. It is tried again, slowly, and when an informer lists it.
	CauseExhausted Cause = "exhausted"
	// CauseHopeless is that of a degraded resource whose Work said that further attempts are hopeless (ResourceDegrade).
	CauseHopeless Cause = "hopeless"
	// CauseUnlisted is that of a deleted resource which a complete listing no longer had.
	CauseUnlisted Cause = "unlisted"
	// CauseWork is that of a deleted resource whose Work said that it is gone outside (ResourceDelete).
	CauseWork Cause = "work"
	// CauseCommand is that of a resource which was deleted explicitly.
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
