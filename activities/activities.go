package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
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
	AttemptName    = "delta.Attempt"
	LapseName      = "delta.Lapse"
	InformPassName = "delta.InformPass"
	SteerName      = "delta.Steer"
	SettledName    = "delta.Settled"

	AttemptBatchName = "delta.AttemptBatch"
	LapseBatchName   = "delta.LapseBatch"
)

// WrongInstallation is the type of the error that ends a workflow which belongs to another database.
const WrongInstallation = "delta.WrongInstallation"

// UnknownKind is the type of the error of a worker that has no controller for the kind.
const UnknownKind = "delta.UnknownKind"

const (
	// DispatchNet is how long after a step that should go on by itself a dispatcher looks again. It is long, because
	// it matters only when Temporal lost a workflow, and because a step may wait in a task queue.
	DispatchNet = 15 * time.Minute
	// DueGrace is how long after due_at a dispatcher steps in, where the workflow's timer should have.
	DueGrace = time.Minute
	// MaxErrors is how many errors a row keeps.
	MaxErrors = 25
	// maxErrorBytes and maxTraceBytes bound one of them.
	maxErrorBytes = 4 << 10
	maxTraceBytes = 16 << 10
)

// Activities are the activities of one kind, on one client.
type Activities struct {
	// Pool is where the rows are.
	Pool *pgxpool.Pool
	// Installation is the database's id.
	Installation string
	// Handler is the kind's controller.
	Handler Handler
	// Logger gets what a person should know.
	Logger *slog.Logger
	// WorkTimeout and InformTimeout apply where the handler leaves them at 0; negative means no bound.
	WorkTimeout, InformTimeout time.Duration
	// Retry says how long to wait after a failure.
	Retry RetryPolicy
	// Rest is for namespaces that no client has configured.
	Rest Rest
	// Limit bounds Work across kinds, by namespace.
	Limit NamespaceLimit
	// Slots bounds Work within the kind; nil where Parallel does.
	Slots *Slots
	// Parallel bounds Work within the kind, on a worker that has no slots for it alone; nil for no bound.
	Parallel *semaphore.Weighted
	// Parallelism is how many calls of Work one batch has at once.
	Parallelism int
	// Turns bound how many batches are handed to Work at once; nil for no bound.
	Turns *Turns
	// BatchSize above 1 tells that the kind's resources are dispatched in batches: one that is synced is left to them.
	BatchSize int
	// Context adds to the context of Work and Inform; nil for nothing.
	Context func(context.Context) context.Context
	// AbandonAfter is how long Work may go on after its context ended before the attempt is closed without it.
	AbandonAfter time.Duration
	// DefaultMaxAttempts is given to resources that an informer finds first.
	DefaultMaxAttempts int16
	// Stopping ends when the client does not wait for Work and Inform any longer; nil for never. It is apart from the
	// context of the activity, which answers Temporal after Work was cancelled.
	Stopping context.Context //nolint:containedctx // it is the client's life, not a call's
	// Observed is called after the outcome of an attempt was written, with what makes the row as it is then, for those who want
	// it; nil for nobody.
	Observed func(verdict Verdict, row func() (*deltatype.ResourceRow, error))
	// Listing says how this kind's listings are taken.
	Listing Listing
	// Informed is called after a page was written, where something in it is to be dispatched.
	Informed func(kind string)
	// Claimed is called when all members of a batch were claimed, so that nobody has to settle their leases; nil for nobody.
	Claimed func(kind, workflowID string)
	// Outbox leases what informers write; nil for none.
	Outbox db.Outbox
}

// Rest says how long resources rest. A negative retention keeps rows for ever; an expiry of 0 never expires.
type Rest struct {
	Expiry, SyncedRetention, DegradedRetention, DeletedRetention time.Duration
}

// NamespaceLimit bounds concurrent Work in a namespace.
type NamespaceLimit interface {
	// Acquire waits for a place; the function gives it back. The error is the context's.
	Acquire(ctx context.Context, namespace string) (release func(), err error)
}

// Ref names a resource, and the database that it is in. Nothing else of it enters a history.
type Ref struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	ObjectID     string `json:"object_id,omitempty"`
	// HashedID stands for ObjectID, where object ids are kept from Temporal.
	HashedID string `json:"hashed_id,omitempty"`
	// SearchAttributes tells that the Temporal namespace has Delta's.
	SearchAttributes bool `json:"search_attributes,omitempty"`
}

// String names the resource as Temporal may know it.
func (r Ref) String() string {
	if r.HashedID != "" {
		return r.Kind + "/#" + r.HashedID
	}
	return r.Kind + "/" + r.ObjectID
}

// Registry is where the activities are registered: a worker or a test environment.
type Registry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

var _ Registry = worker.Worker(nil)

// Kinds are the activities of all kinds that one worker works.
type Kinds map[string]*Activities

// RegisterResource registers what the resource workflow calls.
func (k Kinds) RegisterResource(r Registry) {
	r.RegisterActivityWithOptions(k.Attempt, activity.RegisterOptions{Name: AttemptName})
	r.RegisterActivityWithOptions(k.Lapse, activity.RegisterOptions{Name: LapseName})
	r.RegisterActivityWithOptions(k.AttemptBatch, activity.RegisterOptions{Name: AttemptBatchName})
	r.RegisterActivityWithOptions(k.LapseBatch, activity.RegisterOptions{Name: LapseBatchName})
	r.RegisterActivityWithOptions(k.Steer, activity.RegisterOptions{Name: SteerName})
}

// RegisterInform registers what the inform workflow calls.
func (k Kinds) RegisterInform(r Registry) {
	r.RegisterActivityWithOptions(k.InformPass, activity.RegisterOptions{Name: InformPassName})
	r.RegisterActivityWithOptions(k.Settled, activity.RegisterOptions{Name: SettledName})
}

// of finds the activities of a kind. Another worker of the task queue may have a kind that this one lacks, so the error
// can be retried.
func (k Kinds) of(kind string) (*Activities, error) {
	a, ok := k[kind]
	if !ok && len(k) == 1 {
		for _, a := range k {
			return a, nil // it has the task queue for itself, and refuses
		}
	}
	if !ok {
		return nil, temporal.NewApplicationError(fmt.Sprintf("this worker has no controller for kind %q", kind), UnknownKind)
	}
	return a, nil
}

// on calls an activity of the kind that the input names.
func on[In, Out any](ctx context.Context, k Kinds, kind string, in In, do func(*Activities, context.Context, In) (Out, error)) (out Out, err error) {
	a, err := k.of(kind)
	if err != nil {
		return out, err
	}
	return do(a, ctx, in)
}

// Attempt is [Activities.Attempt] of the resource's kind.
func (k Kinds) Attempt(ctx context.Context, ref Ref) (Step, error) {
	step, err := on(ctx, k, ref.Kind, ref, (*Activities).Attempt)
	return step.shownTo(ref), err
}

// Lapse is [Activities.Lapse] of the resource's kind.
func (k Kinds) Lapse(ctx context.Context, in LapseInput) (Step, error) {
	step, err := on(ctx, k, in.Kind, in, (*Activities).Lapse)
	return step.shownTo(in.Ref), err
}

// AttemptBatch is [Activities.AttemptBatch] of the batch's kind.
func (k Kinds) AttemptBatch(ctx context.Context, in Batch) (BatchStep, error) {
	return on(ctx, k, in.Kind, in, (*Activities).AttemptBatch)
}

// LapseBatch is [Activities.LapseBatch] of the batch's kind.
func (k Kinds) LapseBatch(ctx context.Context, in Batch) (BatchStep, error) {
	return on(ctx, k, in.Kind, in, (*Activities).LapseBatch)
}

// Steer is [Activities.Steer] of the resource's kind.
func (k Kinds) Steer(ctx context.Context, in SteerInput) (SteerResult, error) {
	return on(ctx, k, in.Kind, in, (*Activities).Steer)
}

// InformPass is [Activities.InformPass] of the kind.
func (k Kinds) InformPass(ctx context.Context, in InformInput) (InformProgress, error) {
	return on(ctx, k, in.Kind, in, (*Activities).InformPass)
}

// Settled is [Activities.Settled] of the kind.
func (k Kinds) Settled(ctx context.Context, in SettledInput) (SettledResult, error) {
	return on(ctx, k, in.Kind, in, (*Activities).Settled)
}

// check refuses work that belongs to another database. Retrying does not help, so the workflow fails, visibly. Work that
// names no database was asked for by hand, and is this one's.
func (a *Activities) check(installation, kind string) error {
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

// get reads a resource; found is false where there is none.
func (a *Activities) get(ctx context.Context, ref Ref) (row db.GetResourceRow, found bool, err error) {
	row, err = db.New().GetResource(ctx, a.Pool, db.GetResourceParams{Kind: ref.Kind, ObjectID: ref.ObjectID})
	if errors.Is(err, pgx.ErrNoRows) {
		return row, false, nil
	}
	if err != nil {
		return row, false, fmt.Errorf("reading %s: %w", ref, err)
	}
	return row, true, nil
}
