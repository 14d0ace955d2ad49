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

// WorkOpts say which attempt of which resource it is that [Work], [WorkBatch] or [Finalize] makes. Nil is the first attempt at a new resource.
type WorkOpts struct {
	// Inform are the options that the object was informed with: namespace, metadata, tags, priority, MaxAttempts. Those of the object itself
	// ([delta.ObjectWithInformOpts]) are under them, as ever.
	//
	// Defaults to none.
	Inform *delta.InformOpts

	// Attempt is the number of the attempt within its generation, from 1 to MaxAttempts, which is the last one and degrades what fails.
	//
	// Defaults to 1.
	Attempt int

	// Generation is that of the resource, from 1.
	//
	// Defaults to 1.
	Generation int64

	// SyncedGeneration is the newest generation that was synced before: below Generation, or, for Finalize, not above it.
	//
	// Defaults to 0: none was.
	SyncedGeneration int64

	// SyncCount is how often the resource was synced before.
	//
	// Defaults to 0.
	SyncCount int64

	// Snoozes is how often Work has put itself off within the generation.
	//
	// Defaults to 0.
	Snoozes int

	// Errors are those of earlier attempts, oldest first.
	//
	// Defaults to none.
	Errors []deltatype.AttemptError

	// Cause is why the resource was deleted, for Finalize, which may ask for it. For Work it is why the resource was degraded or deleted earlier.
	//
	// Defaults to [deltatype.CauseCommand] for Finalize, and to none for Work.
	Cause deltatype.Cause

	// Now is the time at which the attempt begins and ends, which other times are reckoned from. It is no clock for user code; timeouts take their
	// real time.
	//
	// Defaults to the present.
	Now time.Time

	// CreatedAt is when the resource was informed first. IdempotencyKey depends on it: leave it alone, and calls for one object and generation have the
	// same key, whatever their Attempt and Now.
	//
	// Defaults to the first of January 2000.
	CreatedAt time.Time

	// Stored is what is stored of the object, where that is not what an inform would write now: to test that Work understands what an older version of
	// the type has written, and what the controller's Upgrade makes of it. The object then says only which resource it is. It cannot be
	// set for WorkBatch.
	//
	// Defaults to the object.
	Stored *Stored

	// DB is the database in which Work begins the transactions that it gives to [delta.Resource.CompleteTx]: a pool, a connection, or, where Work begins
	// savepoints in a transaction of the test's, that transaction. It needs none of Delta's tables, and nothing is written to it: it is asked whether the
	// transaction was committed, which decides the outcome as it does in Delta. Postgres 14 or newer.
	//
	// Defaults to nil: CompleteTx returns an error which says so.
	DB DB

	// Client is what [delta.ClientFromContext] returns. Its Config decides too: ResourceWorkTimeout, Kinds and Logger. It need not be started.
	//
	// Defaults to nil: ClientFromContext panics, and the defaults of [delta.Config] hold.
	Client *delta.Client
}

// Stored is what is stored of an object.
type Stored struct {
	// Version is that of the type that wrote it ([delta.ObjectWithVersion]); 0 where the type had none.
	Version int
	// Object is its JSON.
	Object []byte
}

// Outcome is what Delta would make of one attempt.
type Outcome[T delta.Object] struct {
	// Object is what Work was given: the object after its way through JSON, and through Upgrade. It is empty where the stored object does not decode.
	Object T
	// Called is false where the stored object does not decode: user code is not called, and the resource waits for another worker.
	Called bool
	// State is that of the resource after the attempt.
	State deltatype.ResourceState
	// Cause is why it is degraded or deleted; empty where it never was.
	Cause deltatype.Cause
	// Finalized is true after a Finalize that has succeeded: the row may be removed.
	Finalized bool
	// Err is the error that Work returned, for errors.Is and errors.As. It is nil where it returned none or panicked, and where the commit after CompleteTx has
	// decided.
	Err error
	// Failure says why the resource is not synced, with what Delta knows of it: "timed out after 1s: …", "panic: …". The resource's errors would have it,
	// except after a snooze. Empty for what is synced or finalized.
	Failure string
	// Trace is the stack of a panic.
	Trace string
	// Counted is false for an attempt that does not count: it was snoozed, or the stored object does not decode.
	Counted bool
	// SnoozedFor is how long Work has put itself off, and SnoozeScope what else; 0 and [delta.SnoozesResource] where it has not.
	SnoozedFor  time.Duration
	SnoozeScope delta.SnoozeScope
	// NextAttemptAt is when user code is called next for this generation, if nothing else happens: by the RetryPolicy, after a snooze, by
	// DegradedRetryInterval, or, where the resource became deleted, at once by Finalize. It is exact: Delta adds or takes off up to a tenth after a
	// failure, and takes off up to a twentieth where the resource is degraded. Zero where there is no next attempt.
	NextAttemptAt time.Time
	// Row is the resource after the attempt. Its DueAt is NextAttemptAt, or nil: expiry and retention are settings of its namespace, which are in the database.
	Row *deltatype.ResourceRow
}

// Work calls a controller's Work for an object as Delta does, and returns what Delta would make of it, without Postgres and Temporal:
//
//	outcome, err := deltatest.Work(ctx, controller, order, nil)
//
// The object goes through the checks of an inform, to JSON and back. Work has its timeout ([delta.Worker].ResourceTimeout); a panic, a timeout, or a
// Work that goes on for more than 3 seconds after its context ended, is an outcome. opts may be nil.
//
// What an outcome does to the row is decided by Delta's own code. What is not there: other attempts and clients, limits and rates, expiry and retention,
// and what only Postgres checks or changes, such as the order of members in the stored JSON. A snooze of a kind or a namespace snoozes nothing. [New] is
// for tests of all that.
//
// The error is not Work's, which is in the outcome. It is a *[delta.InputError] for an object, or an option, that breaks a rule; that of [delta.AddControllerSafely];
// or that of DB, if it does not say whether the transaction of CompleteTx was committed.
func Work[T delta.Object](ctx context.Context, controller delta.Controller[T], object T, opts *WorkOpts) (*Outcome[T], error) {
	r, err := openRehearsal("work", controller, opts)
	if err != nil {
		return nil, err
	}
	return r.one(ctx, object)
}

// Finalize is [Work] for the Finalize of a controller ([delta.Finalizer]): the resource is deleted, and opts.Cause says why. It returns an error for a
// controller that has none.
func Finalize[T delta.Object](ctx context.Context, controller delta.Controller[T], object T, opts *WorkOpts) (*Outcome[T], error) {
	r, err := openRehearsal("finalize", controller, opts)
	if err != nil {
		return nil, err
	}
	if !r.kind.Activities.Handler.Finalizes() {
		return nil, fmt.Errorf("deltatest: finalize: %T has no Finalize, so it is never called: see delta.Finalizer", controller)
	}
	r.finalizes = true
	return r.one(ctx, object)
}

// WorkBatch is [Work] for the WorkBatch of a controller ([delta.BatchWorker]): one call for all objects, which must be of one namespace and have different
// ids. Outcomes are in the order of the objects. opts are those of each. It returns an error for a controller without a WorkBatch, and for a kind whose BatchSize
// is not above 1: Delta calls Work for it, in batches too.
func WorkBatch[T delta.Object](ctx context.Context, controller delta.Controller[T], objects []T, opts *WorkOpts) ([]*Outcome[T], error) {
	r, err := openRehearsal("work batch", controller, opts)
	if err != nil {
		return nil, err
	}
	switch a := r.kind.Activities; {
	case !a.Handler.WorksBatches():
		return nil, fmt.Errorf("deltatest: work batch: %T has no WorkBatch, so it is never called: see delta.BatchWorker", controller)
	case a.BatchSize <= 1:
		return nil, r.wrap(kit.InputError("ObjectSettings.BatchSize", a.BatchSize, "must be above 1: otherwise WorkBatch is never called, but Work for each resource"))
	case len(objects) == 0 || len(objects) > a.BatchSize:
		return nil, r.wrap(kit.InputError("objects", fmt.Sprintf("%d objects", len(objects)), "must be at least 1, and at most BatchSize, %d", a.BatchSize))
	case r.opts.Stored != nil:
		return nil, r.wrap(kit.InputError("Stored", r.opts.Stored.Version, "must not be set for WorkBatch, which has many objects"))
	}
	r.together = true
	return r.all(ctx, objects)
}
