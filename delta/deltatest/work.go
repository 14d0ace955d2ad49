package deltatest

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/delta/internal/kit"
)

// DB is a database: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// WorkOpts describe the attempt, and its resource, for [Work], [WorkBatch] or [Finalize]. Nil is the first attempt at a new resource.
type WorkOpts struct {
	// Inform are the options of the inform: namespace, metadata, tags, priority, MaxAttempts. As in an inform, they override the options of the object
	// itself ([delta.ObjectWithInformOpts]).
	//
	// Defaults to none.
	Inform *delta.InformOpts

	// Attempt is the number of the attempt within its generation, from 1 to MaxAttempts. A failure of the last attempt degrades the resource.
	//
	// Defaults to 1.
	Attempt int

	// Generation is the resource's generation, from 1.
	//
	// Defaults to 1.
	Generation int64

	// SyncedGeneration is the latest synced generation: below Generation or, for Finalize, at most Generation.
	//
	// Defaults to 0: never synced.
	SyncedGeneration int64

	// SyncCount is how often the resource was synced before the attempt.
	//
	// Defaults to 0.
	SyncCount int64

	// Snoozes is how often Work was snoozed within the generation.
	//
	// Defaults to 0.
	Snoozes int

	// Errors are the errors of earlier attempts, oldest first.
	//
	// Defaults to none.
	Errors []deltatype.AttemptError

	// Cause is why the resource was deleted, for Finalize, which can read it. For Work it is why the resource was last degraded or deleted.
	//
	// Defaults to [deltatype.CauseCommand] for Finalize, and to none for Work.
	Cause deltatype.Cause

	// Now is the time at which the attempt begins and ends; other times are computed from it. User code still sees the real clock, and timeouts are
	// real.
	//
	// Defaults to the current time.
	Now time.Time

	// CreatedAt is when the resource was first informed. IdempotencyKey depends on it: with the default, all calls for the same object and generation have
	// the same key, whatever their Attempt and Now.
	//
	// Defaults to the first of January 2000.
	CreatedAt time.Time

	// Stored is the stored object if it differs from what an inform would write now. It tests that Work understands objects that an older version of the
	// type has written, and the controller's Upgrade. The object in the call then only names the resource. It cannot be set for WorkBatch.
	//
	// Defaults to the object.
	Stored *Stored

	// DB is the database in which Work begins the transactions that it gives to [delta.Resource.CompleteTx]: a pool, a connection or, if Work begins
	// savepoints in a transaction of the test, that transaction. It needs none of Delta's tables, and nothing is written to it: after Work, it is asked
	// whether the transaction was committed, which decides the outcome as in Delta. Postgres 14 or newer.
	//
	// Defaults to nil: CompleteTx returns an error that says so.
	DB DB

	// Client is returned by [delta.ClientFromContext]. ResourceWorkTimeout, Kinds and Logger of its Config apply too. It need not be started.
	//
	// Defaults to nil: ClientFromContext panics, and the defaults of [delta.Config] apply.
	Client *delta.Client
}

// Stored is an object as it is stored.
type Stored struct {
	// Version is the version of the type that wrote the object ([delta.ObjectWithVersion]); 0 if the type had none.
	Version int
	// Object is its JSON.
	Object []byte
}

// Outcome is the result that one attempt would have in Delta.
type Outcome[T delta.Object] struct {
	// Object is the object that Work got: after its round trip through JSON, and after Upgrade. It is empty if the stored object does not decode.
	Object T
	// Called is false if the stored object does not decode: then user code is not called, and the resource waits for another worker.
	Called bool
	// State is the resource's state after the attempt.
	State deltatype.ResourceState
	// Cause is why the resource was degraded or deleted; empty if it never was.
	Cause deltatype.Cause
	// Finalized is true after a Finalize that succeeded: the row may be removed.
	Finalized bool
	// Err is the error that Work returned, for errors.Is and errors.As. It is nil if Work returned none or panicked, and if the commit after CompleteTx
	// decided the outcome.
	Err error
	// Failure says why the resource is not synced, in Delta's words: "timed out after 1s: …", "panic: …". It is added to the errors of the resource,
	// except after a snooze. It is empty for a synced or finalized resource.
	Failure string
	// Trace is the stack of a panic.
	Trace string
	// Counted is false for an attempt that does not count: it was snoozed, or the stored object does not decode.
	Counted bool
	// SnoozedFor is how long Work snoozed, and SnoozeScope what it snoozed; 0 and [delta.SnoozesResource] if it did not.
	SnoozedFor  time.Duration
	SnoozeScope delta.SnoozeScope
	// NextAttemptAt is when user code is called next for this generation, if nothing else happens: by the RetryPolicy, after a snooze, by
	// DegradedRetryInterval, or at once by Finalize if the resource was deleted. It is exact, while Delta adds or subtracts up to a tenth after a
	// failure, and subtracts up to a twentieth for a degraded resource. It is zero if there is no next attempt.
	NextAttemptAt time.Time
	// Row is the resource after the attempt. Its DueAt is NextAttemptAt, or nil: expiry and retention are settings of its namespace in the database.
	Row *deltatype.ResourceRow
}

// Work calls a controller's Work for an object as Delta does, without Postgres and Temporal, and returns the outcome:
//
//	outcome, err := deltatest.Work(ctx, controller, order, nil)
//
// The object passes the checks of an inform, and a round trip through JSON. Work has its timeout ([delta.Worker].ResourceTimeout). A panic, a timeout,
// and a Work that runs for more than 3 seconds after the end of its context, are outcomes. opts may be nil.
//
// Delta's own code decides the outcome. Left out are other attempts and clients, limits and rates, expiry and retention, and everything that Postgres
// checks or changes, such as the order of members in stored JSON. A snooze of a kind or namespace has no effect on other calls. To test these, use [New].
//
// The returned error is not that of Work, which is in the outcome. It is a *[delta.InputError] for an invalid object or option, an error of
// [delta.AddControllerSafely], or an error of DB if it does not say whether the transaction of CompleteTx was committed.
func Work[T delta.Object](ctx context.Context, controller delta.Controller[T], object T, opts *WorkOpts) (*Outcome[T], error) {
	r, err := openRehearsal("work", controller, opts)
	if err != nil {
		return nil, err
	}
	return r.rehearseOne(ctx, object)
}

// Finalize is the same as [Work], for the Finalize of a controller ([delta.Finalizer]): the resource is deleted, with opts.Cause as the reason. It returns
// an error for a controller without a Finalize.
func Finalize[T delta.Object](ctx context.Context, controller delta.Controller[T], object T, opts *WorkOpts) (*Outcome[T], error) {
	r, err := openRehearsal("finalize", controller, opts)
	if err != nil {
		return nil, err
	}
	if !r.kind.Activities.Handler.Finalizes() {
		return nil, fmt.Errorf("deltatest: finalize: %T has no Finalize, so it is never called: see delta.Finalizer", controller)
	}
	r.isFinalize = true
	return r.rehearseOne(ctx, object)
}

// WorkBatch is the same as [Work], for the WorkBatch of a controller ([delta.BatchWorker]): one call for all objects, which must be in the same namespace
// and have different ids. Outcomes are in the order of the objects; opts apply to each of them. It returns an error for a controller without a
// WorkBatch, and for a kind whose BatchSize is not above 1, because Delta calls Work for it.
func WorkBatch[T delta.Object](ctx context.Context, controller delta.Controller[T], objects []T, opts *WorkOpts) ([]*Outcome[T], error) {
	r, err := openRehearsal("work batch", controller, opts)
	if err != nil {
		return nil, err
	}
	switch a := r.kind.Activities; {
	case !a.Handler.WorksBatches():
		return nil, fmt.Errorf("deltatest: work batch: %T has no WorkBatch, so it is never called: see delta.BatchWorker", controller)
	case a.BatchSize <= 1:
		return nil, r.wrapError(kit.InputError("ObjectSettings.BatchSize", a.BatchSize, "must be above 1: otherwise WorkBatch is never called, but Work for each resource"))
	case len(objects) == 0 || len(objects) > a.BatchSize:
		return nil, r.wrapError(kit.InputError("objects", fmt.Sprintf("%d objects", len(objects)), "must be at least 1, and at most BatchSize, %d", a.BatchSize))
	case r.opts.Stored != nil:
		return nil, r.wrapError(kit.InputError("Stored", r.opts.Stored.Version, "must not be set for WorkBatch, which has many objects"))
	}
	r.isBatch = true
	return r.rehearseAll(ctx, objects)
}
