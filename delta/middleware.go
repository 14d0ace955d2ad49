package delta

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Operation is a method of a controller that Delta calls.
type Operation string

const (
	// OperationWork is Work, for one resource.
	OperationWork Operation = "work"
	// OperationWorkBatch is WorkBatch, for many.
	OperationWorkBatch Operation = "work_batch"
	// OperationFinalize is Finalize, for one deleted resource.
	OperationFinalize Operation = "finalize"
	// OperationList is a listing of an informer: List, or Inform until its channel is closed.
	OperationList Operation = "list"
	// OperationSource is a run of a [Source]. It passes no Middleware, because its call lasts as long as the source runs.
	OperationSource Operation = "source"
)

// Call is one call of a controller.
type Call struct {
	// Operation is the called method.
	Operation Operation
	// Kind is the controller's.
	Kind string
	// Resources are the rows of the call, as they were claimed: one, or many for a WorkBatch; none for a listing. The
	// controller gets these rows: Work sees changes to them.
	Resources []*deltatype.ResourceRow
	// Results are those of a WorkBatch, one for each of Resources, set once next has returned. Middleware may replace them.
	Results []error
	// Pass is the pass of a listing; nil for other operations.
	Pass *PassCall

	// carriers are the carriers of Resources, in their order.
	carriers []string
}

// PassCall describes the pass of a listing.
type PassCall struct {
	// WorkflowID and RunID are those of the run of the informer, and Attempt counts its tries, as in [InformPass].
	WorkflowID, RunID string
	Attempt           int
	// Options are the options that the informer gets.
	Options InformOptions
}

// Middleware is called around the calls of controllers, on the goroutine of the call and with its context, which has a
// [Logger], the client and the timeout. It calls next once, with the context for the controller, and returns next's error,
// or another one, which then counts as if the controller had returned it. A panic of the controller is a *[PanicError] by
// then. A Middleware that returns without calling next replaces the controller.
//
// The call ends when both the Middleware and next have returned, because two calls of Work for one resource must not
// overlap. If a Middleware returns first, for example after its own timeout, the context of next is canceled, and the call
// goes on until next returns: a controller that ignores its context keeps its slot and its claim. An error of such a
// Middleware counts, but nil is replaced by next's error. A second call of next, or one after the Middleware has returned,
// calls nothing and returns an error. To have a failed call tried again, return its error.
//
// Around a listing, next returns when everything was listed, with the error of [FailInform] if the informer called it. An
// error fails the pass. Returning nil does not complete a listing that failed, or for which next was not called, because
// the missing objects would count as gone.
//
// A panic of a Middleware harms nothing: it is logged, next is called if it was not, and next's error counts. A Middleware
// must be safe for concurrent use.
type Middleware func(ctx context.Context, call *Call, next func(ctx context.Context) error) error

// PanicError is a panic of a controller.
type PanicError struct {
	// Value is the argument of panic.
	Value any
	// Stack is the stack of the goroutine.
	Stack string
}

// Error has the value.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// catchPanic, deferred, turns a panic of user code into an error.
func catchPanic(err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{Value: v, Stack: string(debug.Stack())}
	}
}

// Unwrap returns the value, if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

type (
	callKey     struct{}
	resourceKey struct{}
)

// WithResource returns a context for one resource of a WorkBatch, or of the [Call] of a Middleware: its [Logger] has the
// same fields as in Work.
//
//	for i, r := range resources {
//		results[i] = push(delta.WithResource(ctx, r.ResourceRow), r.Object)
//	}
func WithResource(ctx context.Context, row *deltatype.ResourceRow) context.Context {
	return context.WithValue(ctx, resourceKey{}, row)
}

// Logger returns the client's logger with the fields of the call whose context it gets. In Work and Finalize these are the
// kind, id (unless object ids are hashed), namespace, generation, attempt and workflow of the resource. In a WorkBatch the
// number of resources replaces the id, generation and attempt; the context of [WithResource] has the fields of one of them.
// In a listing they are the workflow, its run, the number of the try, and the shard. Outside of a call it returns the
// default logger.
func Logger(ctx context.Context) *slog.Logger {
	client, err := ClientFromContextSafely(ctx)
	if err != nil {
		return slog.Default()
	}
	logger := client.config.Logger
	if row, ok := ctx.Value(resourceKey{}).(*deltatype.ResourceRow); ok && row != nil {
		return logger.With(client.logFields(row)...)
	}
	call, ok := ctx.Value(callKey{}).(*Call)
	switch {
	case !ok:
		return logger
	case len(call.Resources) == 1:
		return logger.With(client.logFields(call.Resources[0])...)
	case len(call.Resources) > 1:
		first := call.Resources[0]
		return logger.With("kind", call.Kind, "namespace", first.Namespace, "resources", len(call.Resources), "workflow_id", first.WorkflowID)
	case call.Pass != nil:
		logger = logger.With("kind", call.Kind, "workflow_id", call.Pass.WorkflowID, "run_id", call.Pass.RunID, "attempt", call.Pass.Attempt)
		if shard := call.Pass.Options.Shard; shard != "" {
			logger = logger.With("shard", shard)
		}
		return logger
	}
	return logger.With("kind", call.Kind)
}

// logFields returns the log fields of a resource.
func (c *Client) logFields(row *deltatype.ResourceRow) []any {
	id := activities.IDField(row.ObjectID, &row.HashedID, c.config.HashObjectIDs)
	return []any{
		"kind", row.ObjectKind, id, "namespace", row.Namespace, "generation", row.Generation, "attempt", row.Attempt, "workflow_id", row.WorkflowID,
	}
}
