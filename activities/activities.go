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

	"github.com/chariot-giving/delta/db"
)

// Registered names. They are in histories: never change one.
const (
	AttemptName    = "delta.Attempt"
	LapseName      = "delta.Lapse"
	InformPassName = "delta.InformPass"
)

// WrongInstallation is the type of the error that ends a workflow which belongs to another database.
const WrongInstallation = "delta.WrongInstallation"

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
	// Rest is for namespaces that no client has configured.
	Rest Rest
	// Limit bounds Work across kinds, by namespace.
	Limit NamespaceLimit
	// Slots bounds Work within the kind; nil for no bound.
	Slots *Slots
	// AbandonAfter is how long Work may go on after its context ended before the attempt is closed without it.
	AbandonAfter time.Duration
	// DefaultMaxAttempts is given to resources that an informer finds first.
	DefaultMaxAttempts int16
	// Stopping ends when the client does not wait for Work and Inform any longer; nil for never. It is apart from the
	// context of the activity, which answers Temporal after Work was cancelled.
	Stopping context.Context //nolint:containedctx // it is the client's life, not a call's
	// Informed is called after a page was written, where something in it is to be dispatched.
	Informed func(kind string)
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
	ObjectID     string `json:"object_id"`
}

// Registry is where the activities are registered: a worker or a test environment.
type Registry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

var _ Registry = worker.Worker(nil)

// RegisterResource registers what the resource workflow calls.
func (a *Activities) RegisterResource(r Registry) {
	r.RegisterActivityWithOptions(a.Attempt, activity.RegisterOptions{Name: AttemptName})
	r.RegisterActivityWithOptions(a.Lapse, activity.RegisterOptions{Name: LapseName})
}

// RegisterInform registers what the inform workflow calls.
func (a *Activities) RegisterInform(r Registry) {
	r.RegisterActivityWithOptions(a.InformPass, activity.RegisterOptions{Name: InformPassName})
}

// check refuses work that belongs to another database. Retrying does not help, so the workflow fails, visibly.
func (a *Activities) check(installation, kind string) error {
	if installation != a.Installation {
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
		return row, false, fmt.Errorf("reading %s/%s: %w", ref.Kind, ref.ObjectID, err)
	}
	return row, true, nil
}
