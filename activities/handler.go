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
	// Kind is the kind of object that the controller is for.
	Kind() string
	// Work brings one resource in line.
	Work(ctx context.Context, task *Task) Outcome
	// WorksBatches tells whether the controller takes many resources in one call.
	WorksBatches() bool
	// WorkBatch brings many resources in line; it gives an outcome for each.
	WorkBatch(ctx context.Context, tasks []*Task) []Outcome
	// Finalizes reports whether the controller finalizes deleted resources.
	Finalizes() bool
	// Finalize clears up after a deleted resource. Success is VerdictFinalized.
	Finalize(ctx context.Context, task *Task) Outcome
	// WorkTimeout bounds Work: 0 leaves it to the client, a negative value means no bound. It is called before Work.
	WorkTimeout(task *Task) time.Duration
	// ListsNothing reports whether the kind has no informer.
	ListsNothing() bool
	// NamesShards reports whether the kind is listed shard by shard.
	NamesShards() bool
	// Shards are the shards of the kind, sorted, each once.
	Shards(ctx context.Context) ([]string, error)
	// Inform lists what exists outside. The channel is closed at the end of the listing, or when the context ends. An
	// item with an error is an object that cannot be taken, or, with Fatal, the end of a listing that broke off.
	Inform(ctx context.Context, options deltatype.InformOptions) <-chan Listed
	// Encode takes an object, as JSON, and its options as they came from outside.
	Encode(object, options []byte) (deltatype.ObjectInformParams, error)
	// InformTimeout bounds one pass of Inform: 0 leaves it to the client, a negative value means no bound. Its options are those that reach
	// the informer.
	InformTimeout(in InformInput) time.Duration
}

// CompleteTx marks the attempt that runs as synced, in a transaction of the caller's.
type CompleteTx func(ctx context.Context, tx pgx.Tx) error

// Task is one resource to be worked. It belongs to one call.
type Task struct {
	// Row is for user code, which may change it: no outcome is written by what is in it.
	Row *deltatype.ResourceRow
	// CompleteTx has the attempt marked synced by a transaction of the user's own.
	CompleteTx CompleteTx
	// Carrier has the values that the inform of the generation carries; empty for none.
	Carrier string
	// Decoded is for the handler: what it made of the row, so that it is made once.
	Decoded any
}

// Verdict is what Work came to.
type Verdict int

const (
	// VerdictSynced is success.
	VerdictSynced Verdict = iota
	// VerdictFailed is an error or a panic.
	VerdictFailed
	// VerdictDeleted says that the object is gone outside.
	VerdictDeleted
	// VerdictSnoozed puts the attempt off, without counting it.
	VerdictSnoozed
	// VerdictDegraded is a failure that further attempts would not mend.
	VerdictDegraded
	// VerdictReleased gives the resource back as if it had not been claimed: Work was not called, or was cut off through no fault of its own.
	VerdictReleased
	// VerdictFinalized is success of Finalize.
	VerdictFinalized
	// VerdictWithheld gives it back to dispatchers, which leave it while its kind or its namespace is snoozed: it was snoozed after the claim, so
	// Work was not called.
	VerdictWithheld
	// VerdictUnreadable says that the stored object does not decode here: Work was not called, and the resource waits for a worker that
	// understands it, as during a rolling deploy. It does not count as an attempt.
	VerdictUnreadable
)

// Outcome is what Work came to, and why.
type Outcome struct {
	Verdict Verdict
	// Error is the error's text, for every verdict but synced.
	Error string
	// Trace is the stack of a panic.
	Trace string
	// Err is the error as user code returned it; nil where it returned none.
	Err error
	// Took is how long the call of user code took, for all of the resources that it was given together; 0 where there was none.
	Took time.Duration
	// SnoozeFor is how long a snoozed attempt is put off, and SnoozeScope what else is.
	SnoozeFor   time.Duration
	SnoozeScope SnoozeScope
	// lost is set for an attempt that a dead worker had claimed: Work is not called.
	lost bool
	// returned is set where the call goes on: it is closed when the call returns, and the claim is kept until then.
	returned <-chan struct{}
}

// hasFailed reports whether user code has failed, whatever became of the resource meanwhile.
func (o *Outcome) hasFailed() bool {
	return o.Verdict == VerdictFailed || o.Verdict == VerdictDegraded || o.Trace != ""
}

// Listed is one item of a listing.
type Listed struct {
	Params deltatype.ObjectInformParams
	Err    error
	Fatal  bool
	// Cursor is set in the last item of a complete listing whose informer keeps its own; then there is no object.
	Cursor *string
}
