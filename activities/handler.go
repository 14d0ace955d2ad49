package activities

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Handler is a user's controller with its type erased. It works on rows and bytes, and turns panics of user code into
// errors.
type Handler interface {
	// Kind is the controller's kind of object.
	Kind() string
	// Work syncs one resource.
	Work(ctx context.Context, task *Task) Outcome
	// WorksBatches reports whether the controller takes many resources in one call.
	WorksBatches() bool
	// WorkBatch syncs many resources and returns an outcome for each.
	WorkBatch(ctx context.Context, tasks []*Task) []Outcome
	// Finalizes reports whether the controller finalizes deleted resources.
	Finalizes() bool
	// Finalize cleans up after a deleted resource. Success is VerdictFinalized.
	Finalize(ctx context.Context, task *Task) Outcome
	// WorkTimeout bounds Work: 0 leaves it to the client, a negative value means no timeout. It is called before Work.
	WorkTimeout(task *Task) time.Duration
	// ListsNothing reports whether the kind has no informer.
	ListsNothing() bool
	// NamesShards reports whether the kind is listed shard by shard.
	NamesShards() bool
	// Shards are the shards of the kind, sorted, each once.
	Shards(ctx context.Context) ([]string, error)
	// Inform lists the objects outside. It closes the channel at the end of the listing, or when the context ends. An
	// item with an error is an object that cannot be taken or, with Fatal, the end of an incomplete listing.
	Inform(ctx context.Context, options deltatype.InformOptions) <-chan Listed
	// Encode encodes an object, as JSON, and its options as they came from outside.
	Encode(object, options []byte) (deltatype.ObjectInformParams, error)
	// InformTimeout bounds one pass of Inform: 0 leaves it to the client, a negative value means no timeout. The
	// options of in are those that the informer gets.
	InformTimeout(in InformInput) time.Duration
}

// CompleteTx marks the running attempt as synced in the caller's transaction.
type CompleteTx func(ctx context.Context, tx pgx.Tx) error

// Task is one resource for one call of user code.
type Task struct {
	// Row is for user code, which may change it: no outcome depends on it.
	Row *deltatype.ResourceRow
	// IsEncoded reports whether the object is stored encoded: errors must not show a part of it.
	IsEncoded bool
	// Undecoded is why the client's codec does not decode the object; nil if it has done so.
	Undecoded error
	// CompleteTx marks the attempt as synced in the user's own transaction.
	CompleteTx CompleteTx
	// Carrier has the values that the inform of this generation carries; empty for none.
	Carrier string
	// Decoded keeps the handler's decoded object, so that it decodes once.
	Decoded any
}

// Verdict is the result of Work.
type Verdict int

const (
	// VerdictSynced is success.
	VerdictSynced Verdict = iota
	// VerdictFailed is an error or a panic.
	VerdictFailed
	// VerdictDeleted means that the object is gone outside.
	VerdictDeleted
	// VerdictSnoozed postpones the attempt and does not count it.
	VerdictSnoozed
	// VerdictDegraded is a failure that further attempts would not fix.
	VerdictDegraded
	// VerdictReleased returns the resource as if it had not been claimed: Work was not called, or was cut off through
	// no fault of its own.
	VerdictReleased
	// VerdictFinalized is success of Finalize.
	VerdictFinalized
	// VerdictWithheld returns the resource to the dispatchers, which leave it while its kind or namespace is snoozed.
	// It was snoozed after the claim, so Work was not called.
	VerdictWithheld
	// VerdictUndecodable means that the stored object does not decode here. Work was not called, and the resource waits
	// for a worker that can decode it, as during a rolling deploy. It does not count as an attempt.
	VerdictUndecodable
)

// Outcome is the result of Work, with its reason.
type Outcome struct {
	Verdict Verdict
	// Error is the error's text, for every verdict but synced.
	Error string
	// Trace is the stack of a panic.
	Trace string
	// Err is the error as user code returned it; nil where it returned none.
	Err error
	// Took is how long the call of user code took, for all resources of the call together; 0 where there was no call.
	Took time.Duration
	// SnoozeFor is how long a snoozed attempt waits, and SnoozeScope what else waits as long.
	SnoozeFor   time.Duration
	SnoozeScope deltatype.SnoozeScope
	// lost reports whether a dead worker had claimed the attempt: Work is not called.
	lost bool
	// returned is set where the call goes on: it is closed when the call returns, and the claim stays open until then.
	returned <-chan struct{}
}

// hasFailed reports whether user code has failed, even if the resource went on meanwhile.
func (o *Outcome) hasFailed() bool {
	return o.Verdict == VerdictFailed || o.Verdict == VerdictDegraded || o.Trace != ""
}

// Listed is one item of a listing.
type Listed struct {
	Params deltatype.ObjectInformParams
	Err    error
	Fatal  bool
	// Cursor is set in the last item of a complete listing by an informer with its own cursor; that item has no object.
	Cursor *string
}
