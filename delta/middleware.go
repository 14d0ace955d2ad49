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
	// OperationSource is a run of a [Source]. It is in no Middleware: its call lasts as long as the source goes on.
	OperationSource Operation = "source"
)

// Call is one call of a controller.
type Call struct {
	// Operation says which method is called.
	Operation Operation
	// Kind is the controller's.
	Kind string
	// Resources are the rows that are worked, as they were claimed: one, or many for a WorkBatch; none for a listing. They are the
	// controller's own: what is changed in one, Work sees.
	Resources []*deltatype.ResourceRow
	// Results are those of a WorkBatch, one for each of Resources, set once next has returned. Middleware may replace them.
	Results []error
	// Pass is the pass that a listing is for; nil for other operations.
	Pass *PassCall

	// carriers are what the informs of Resources carry, in their order.
	carriers []string
}

// PassCall is what a listing is called for.
type PassCall struct {
	// WorkflowID and RunID are those of the run of the informer, and Attempt is which try of it this is, as in [InformPass].
	WorkflowID, RunID string
	Attempt           int
	// Options are those that the informer is given.
	Options InformOptions
}

// Middleware is called around the calls of controllers, on the goroutine of the call and with its context, which has a [Logger], the client
// and the timeout. It calls next once, with the context that the controller is to have, and returns its error, or another one: what it
// returns counts, as if the controller had returned it. A panic of the controller is a *[PanicError] by then. A Middleware that returns
// without calling next takes the place of the controller.
//
// The call ends when both the Middleware and next have returned, because two calls of Work for one resource must not overlap. If a Middleware returns
// first, such as after a time of its own, the context that next was given is canceled, and the call goes on until next returns: a controller that
// ignores its context keeps its slot and its claim. The error of such a Middleware counts, but its nil does not: next's error takes its place.
// A second call of next, and one after the Middleware has returned, calls nothing and returns an error. To have a failed call tried again,
// return its error.
//
// Around a listing, next returns when all was listed, with the reason if the informer has failed it ([FailInform]). An error fails the pass. No
// error makes no listing complete that failed, or that next was not called for: what it leaves out would count as gone.
//
// One that panics harms nothing: the panic is logged, next is called if it was not, and its error counts. It must be safe for concurrent use.
type Middleware func(ctx context.Context, call *Call, next func(ctx context.Context) error) error

// PanicError is a panic of a controller.
type PanicError struct {
	// Value is what was given to panic.
	Value any
	// Stack is that of the goroutine.
	Stack string
}

// Error has the value.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// catchPanic is deferred around code of the user's. It makes an error of a panic.
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

// WithResource returns a context for one resource of a WorkBatch, or of the [Call] of a Middleware: its [Logger] has the fields that it has in Work.
//
//	for i, r := range resources {
//		results[i] = push(delta.WithResource(ctx, r.ResourceRow), r.Object)
//	}
func WithResource(ctx context.Context, row *deltatype.ResourceRow) context.Context {
	return context.WithValue(ctx, resourceKey{}, row)
}

// Logger returns the client's logger, with the fields of the call whose context it is given: the kind, and of the resource that is worked its
// id (unless object ids are hashed), namespace, generation, attempt and workflow. For a WorkBatch it has the number of resources instead, and for
// each of them the same fields as in Work with the context of [WithResource]. For a listing it has the workflow, its run, which try of that it is, and the
// shard. Outside of a call it is the default logger.
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

// logFields are those that a line of the log has of a resource.
func (c *Client) logFields(row *deltatype.ResourceRow) []any {
	id := activities.IDField(row.ObjectID, &row.HashedID, c.config.HashObjectIDs)
	return []any{
		"kind", row.ObjectKind, id, "namespace", row.Namespace, "generation", row.Generation, "attempt", row.Attempt, "workflow_id", row.WorkflowID,
	}
}
