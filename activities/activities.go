package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"golang.org/x/sync/semaphore"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Registered names. They are in histories: never change one.
const (
	AttemptName       = "delta.Attempt"
	EndRetentionName  = "delta.EndRetention"
	CommandName       = "delta.Command"
	InformPassName    = "delta.InformPass"
	AwaitSettledName  = "delta.AwaitSettled"
	ForgetListingName = "delta.ForgetListing"

	AttemptBatchName      = "delta.AttemptBatch"
	EndBatchRetentionName = "delta.EndBatchRetention"

	RunSourceName = "delta.RunSource"
)

// WrongInstallation is the type of the error that ends a workflow of another database.
const WrongInstallation = "delta.WrongInstallation"

// UnknownKind is the type of the error of a worker without a controller for the kind.
const UnknownKind = "delta.UnknownKind"

const (
	// DispatchLease is how long a dispatcher leaves a due row alone after it woke the row's workflow.
	DispatchLease = time.Minute
	// LongestLease bounds the lease of a row that is long overdue.
	LongestLease = 15 * time.Minute
	// DueGrace is how long after due_at a dispatcher wakes a workflow that missed its own timer.
	DueGrace = time.Minute
	// MaxErrors is how many errors a row keeps.
	MaxErrors = 25
	// maxErrorBytes and maxTraceBytes bound each of these errors.
	maxErrorBytes = 4 << 10
	maxTraceBytes = 16 << 10
)

// Activities are the activities of one kind, on one client.
type Activities struct {
	// Pool connects to the database.
	Pool *pgxpool.Pool
	// Installation is the id of the database.
	Installation string
	// Coder encodes and decodes stored objects; nil for objects that are stored as they are.
	Coder *db.Coder
	// Handler is the kind's controller.
	Handler Handler
	// Logger gets messages for people.
	Logger *slog.Logger
	// WorkTimeout and InformTimeout apply where the handler returns 0; negative means no timeout.
	WorkTimeout, InformTimeout time.Duration
	// Retry gives the wait after a failure.
	Retry deltatype.RetryPolicy
	// Retention is for namespaces that no client has configured.
	Retention Retention
	// Limit bounds concurrent Work in a namespace, across kinds.
	Limit NamespaceLimit
	// WorkSlots bound concurrent Work of the kind; nil for no bound.
	WorkSlots *semaphore.Weighted
	// OwnQueue reports whether the worker's task queue is for this kind alone.
	OwnQueue bool
	// Rate bounds how many calls of Work begin in a second; nil for no bound.
	Rate *RateLimit
	// Keys reports whether the keys of objects limit calls.
	Keys KeyLimits
	// HasParents reports whether objects of the kind may have parents, which are synced before them.
	HasParents bool
	// SyncedFirst is called when a resource was synced for the first time, because others may wait for it; nil for no
	// call.
	SyncedFirst func(kind, objectID string)
	// Snoozes are the snoozes that the client knows; nil for none.
	Snoozes *Snoozes
	// Pace measures attempts; nil for no measure, and no local activities.
	Pace Pace
	// HeartbeatTimeout is the heartbeat timeout of the kind's attempts; 0 for the default.
	HeartbeatTimeout time.Duration
	// Claims renews the claims of the client; nil for claims that are never renewed, as in tests.
	Claims *Claims
	// Parallelism is how many calls of Work one batch makes at once.
	Parallelism int
	// BatchSlots bound how many batches are handed to Work at once; nil for no bound.
	BatchSlots *BatchSlots
	// BatchSize is how many resources a batch has at most: 1 for single workflows, 0 to leave it to the dispatcher.
	// Above 1, batches take the resources that expire, and the controller may get many resources in one call.
	BatchSize int
	// Context adds to the context of Work and Inform; nil for nothing.
	Context func(context.Context) context.Context
	// HashObjectIDs keeps object ids from Temporal.
	HashObjectIDs bool
	// HasAttributes reports whether the Temporal namespace has Delta's search attributes; nil for no.
	HasAttributes func() bool
	// AbandonAfter is how long Work may go on after the end of its context. Then the attempt is closed without it.
	AbandonAfter time.Duration
	// DefaultMaxAttempts is for resources that an informer finds first.
	DefaultMaxAttempts int16
	// Unanswered is called when Postgres did not take a statement of an attempt for a reason that may pass; nil for no
	// call.
	Unanswered func()
	// Stopping ends when the client no longer waits for Work and Inform; nil for never. It is not the activity's
	// context, because that one answers Temporal after Work was cancelled.
	Stopping context.Context //nolint:containedctx // it is the client's life, not a call's
	// Observed is called after an outcome, or a deletion by a listing, was written; nil for no call.
	Observed func(Observation)
	// PassBegins is called when a step of an informer's run begins. It returns the context of the step and a function
	// to call at its end; nil for no call.
	PassBegins func(context.Context, PassStep, InformInput) (context.Context, func(PassObservation))
	// PassEnded is called when a pass has ended and its end was noted, or could not be. Listed is called after each
	// page of it was written. ClaimsLost is called when calls of user code were ended because others may have claimed
	// their resources. Nil for no call.
	PassEnded func(PassObservation)
	// SourceFailed is called when a source's run has failed and the failure was noted; nil for no call.
	SourceFailed func(PassObservation)
	Listed       func([]*deltatype.ObjectInformResult)
	ClaimsLost   func(kind, namespace string, resources int)
	// Listing has the settings of the kind's listings.
	Listing Listing
	// Informed is called after due rows were written, with how many one statement has made due; nil for no call.
	Informed func(kind string, due int)
	// LogChanges reports whether settled steps are appended to the log of changes.
	LogChanges bool
	// Sources feed the kind, by name; nil for none.
	Sources map[string]Source

	local localAttempts
}

// Retention has the times after which settled resources expire or are removed. A negative retention keeps rows for
// ever; an expiry of 0 never expires.
type Retention struct {
	Expiry, SyncedRetention, DegradedRetention, DeletedRetention time.Duration
	// DegradedRetry is the time after which a resource that used up its attempts is tried again instead of removed. 0
	// or less means never.
	DegradedRetry time.Duration
}

// NamespaceLimit bounds concurrent Work in a namespace.
type NamespaceLimit interface {
	// Acquire waits for a slot, and returns a function that releases it. The error is the context's.
	Acquire(ctx context.Context, namespace string) (release func(), err error)
	// TryAcquire takes a slot if one is free.
	TryAcquire(namespace string) (release func(), ok bool)
	// Arrive notes that a resource which a dispatcher has leased asks for a slot, and Decline that it needs none. Until
	// then it takes room from other resources of the namespace.
	Arrive(kind, namespace string)
	Decline(kind, namespace string)
	// AwaitRates waits until the rates of a limited namespace and of a kind let a call begin. The caller calls begun when it
	// has its slots or gave up. Calls of one kind and namespace come one by one, so that at most one of them is later than
	// the time that it reserved, and at most one keeps a slot of the namespace while it waits. hasWaited is false if the call
	// has yet to wait for the rate of the kind.
	AwaitRates(ctx context.Context, kind, namespace string, ofKind *RateLimit) (begun func(), hasWaited bool, err error)
	// Queue asks for a place to wait in, which costs a slot of the worker. If too many resources of the kind wait because of
	// limited namespaces, and this one would, ok is false, and a dispatcher has to bring it again. Otherwise the caller calls
	// leave when it has its slots or gave up.
	Queue(kind, namespace string) (leave func(), ok bool)
	// KeyedRoom returns how many resources of a kind with limit keys may have a slot of their key in each limited namespace,
	// and the namespaces in which none may, because it would wait for a slot of its namespace.
	KeyedRoom(kind string) (limited []string, rooms []int32, full []string)
	// IsRated reports whether a namespace has a rate.
	IsRated(namespace string) bool
	// IsFull reports whether Acquire or AwaitRates would wait.
	IsFull(namespace string) bool
}

// Ref names a resource and its database. Histories contain nothing else of the resource.
type Ref struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	ObjectID     string `json:"object_id,omitempty"`
	// ID is the row's id as a dispatcher saw it: a hint that saves a read.
	ID int64 `json:"id,omitempty"`
	// Namespace is the resource's namespace as a dispatcher saw it, also a hint.
	Namespace string `json:"namespace,omitempty"`
	// HashedID replaces ObjectID where object ids are kept from Temporal.
	HashedID string `json:"hashed_id,omitempty"`
	// SearchAttributes reports whether the Temporal namespace has Delta's. It counts only where Delta started the
	// workflow: the sender of a signal does not know.
	SearchAttributes bool `json:"search_attributes,omitempty"`
	// Local makes the first attempt a local activity.
	Local bool `json:"local,omitempty"`
	// Encoded reports whether a user's data converter encodes what Temporal stores of the workflow. It does not encode
	// errors of activities, unless there is a failure converter too.
	Encoded bool `json:"encoded,omitempty"`
}

// String names the resource as far as Temporal may know it.
func (r Ref) String() string {
	if r.HashedID != "" {
		return r.Kind + "/#" + r.HashedID
	}
	return r.Kind + "/" + r.ObjectID
}

// Registry registers activities: it is a worker or a test environment.
type Registry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

var _ Registry = worker.Worker(nil)

// Kinds are the activities of all kinds of one worker.
type Kinds map[string]*Activities

// RegisterResource registers the activities that workflows of resources call.
func (k Kinds) RegisterResource(r Registry) {
	r.RegisterActivityWithOptions(k.Attempt, activity.RegisterOptions{Name: AttemptName})
	r.RegisterActivityWithOptions(k.EndRetention, activity.RegisterOptions{Name: EndRetentionName})
	r.RegisterActivityWithOptions(k.AttemptBatch, activity.RegisterOptions{Name: AttemptBatchName})
	r.RegisterActivityWithOptions(k.EndBatchRetention, activity.RegisterOptions{Name: EndBatchRetentionName})
	r.RegisterActivityWithOptions(k.Command, activity.RegisterOptions{Name: CommandName})
}

// RegisterInform registers the activities that workflows of informers and sources call.
func (k Kinds) RegisterInform(r Registry) {
	r.RegisterActivityWithOptions(k.InformPass, activity.RegisterOptions{Name: InformPassName})
	r.RegisterActivityWithOptions(k.AwaitSettled, activity.RegisterOptions{Name: AwaitSettledName})
	r.RegisterActivityWithOptions(k.ForgetListing, activity.RegisterOptions{Name: ForgetListingName})
	r.RegisterActivityWithOptions(k.RunSource, activity.RegisterOptions{Name: RunSourceName})
}

// findActivities returns the activities of a kind. The error can be retried, because another worker of the task queue
// may have a kind that this one lacks.
func (k Kinds) findActivities(kind string) (*Activities, error) {
	a, ok := k[kind]
	if !ok && len(k) == 1 {
		for _, a := range k {
			if a.OwnQueue {
				return a, nil // no other worker polls the queue, so it refuses for good
			}
		}
	}
	if !ok {
		return nil, temporal.NewApplicationError(fmt.Sprintf("this worker has no controller for kind %q", kind), UnknownKind)
	}
	return a, nil
}

// callActivity calls an activity of the kind that the input names.
func callActivity[In, Out any](ctx context.Context, k Kinds, kind string, in In, do func(*Activities, context.Context, In) (Out, error)) (out Out, err error) {
	a, err := k.findActivities(kind)
	if err != nil {
		return out, err
	}
	out, err = do(a, ctx, in)
	if err != nil && a.HashObjectIDs {
		err = a.withoutIDs(ctx, err)
	}
	return out, err
}

// withoutIDs logs an error, and returns one for Temporal without any text that might name an object. The error of a
// pass was logged before.
func (a *Activities) withoutIDs(ctx context.Context, err error) error {
	const why = "it failed; the log of the client says why: object ids are kept from Temporal"
	if pass := new(PassError); errors.As(err, &pass) {
		return &PassError{errors.New(why)}
	}
	a.Logger.Warn("an activity failed; Temporal is not told why, since object ids are kept from it",
		"kind", a.Handler.Kind(), "workflow_id", WorkflowID(ctx), "run_id", RunID(ctx), "error", err)
	application := new(temporal.ApplicationError)
	if errors.As(err, &application) {
		return temporal.NewApplicationErrorWithOptions(why, application.Type(), temporal.ApplicationErrorOptions{NonRetryable: application.NonRetryable()})
	}
	return temporal.NewApplicationError(why, "delta.Failed")
}

// Attempt is [Activities.Attempt] of the resource's kind. A failed attempt is a failed activity in Temporal, with the
// step in the details of its error.
func (k Kinds) Attempt(ctx context.Context, ref Ref) (Step, error) {
	step, err := callActivity(ctx, k, ref.Kind, ref, (*Activities).Attempt)
	if err != nil {
		return Step{}, soonElsewhere(err)
	}
	step = step.shownTo(ref)
	return step, step.asError()
}

// EndRetention is [Activities.EndRetention] of the resource's kind.
func (k Kinds) EndRetention(ctx context.Context, ref Ref) (Step, error) {
	step, err := callActivity(ctx, k, ref.Kind, ref, (*Activities).EndRetention)
	return step.shownTo(ref), err
}

// AttemptBatch is [Activities.AttemptBatch] of the batch's kind.
func (k Kinds) AttemptBatch(ctx context.Context, in Batch) (BatchStep, error) {
	step, err := callActivity(ctx, k, in.Kind, in, (*Activities).AttemptBatch)
	return step, soonElsewhere(err)
}

// EndBatchRetention is [Activities.EndBatchRetention] of the batch's kind.
func (k Kinds) EndBatchRetention(ctx context.Context, in Batch) (BatchStep, error) {
	return callActivity(ctx, k, in.Kind, in, (*Activities).EndBatchRetention)
}

// Command is [Activities.Command] of the resource's kind.
func (k Kinds) Command(ctx context.Context, in CommandInput) (CommandResult, error) {
	return callActivity(ctx, k, in.Kind, in, (*Activities).Command)
}

// InformPass is [Activities.InformPass] of the kind.
func (k Kinds) InformPass(ctx context.Context, in InformInput) (InformProgress, error) {
	return callActivity(ctx, k, in.Kind, in, (*Activities).InformPass)
}

// AwaitSettled is [Activities.AwaitSettled] of the kind.
func (k Kinds) AwaitSettled(ctx context.Context, in AwaitInput) (AwaitResult, error) {
	return callActivity(ctx, k, in.Kind, in, (*Activities).AwaitSettled)
}

// ForgetListing is [Activities.ForgetListing] of the kind.
func (k Kinds) ForgetListing(ctx context.Context, in AwaitInput) (struct{}, error) {
	return callActivity(ctx, k, in.Kind, in, func(a *Activities, ctx context.Context, in AwaitInput) (struct{}, error) {
		return struct{}{}, a.ForgetListing(ctx, in)
	})
}

// RunSource is [Activities.RunSource] of the kind.
func (k Kinds) RunSource(ctx context.Context, in SourceInput) (struct{}, error) {
	a, err := k.findActivities(in.Kind)
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, a.RunSource(ctx, in)
}

// checkTarget refuses work for another database. A retry would not help, so the workflow fails, visibly. Work that
// names no database was started by hand, and is for this one.
func (a *Activities) checkTarget(installation, kind string) error {
	if installation != a.Installation && installation != "" {
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("this workflow belongs to Delta installation %s, but the worker's database is installation %s",
				installation, a.Installation), WrongInstallation, nil)
	}
	if kind != a.Handler.Kind() {
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("kind %q came to the worker of kind %q", kind, a.Handler.Kind()), "delta.WrongKind", nil)
	}
	return nil
}
