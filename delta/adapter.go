package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

type handler = activities.Handler

// controllerAdapter erases a controller's type. It is the only place where rows become objects and objects rows.
type controllerAdapter[T Object] struct {
	controller Controller[T]
	// lister lists, and listsNothing is set for NoInformer. If neither is set, the controller's Inform lists.
	lister       Lister[T]
	listsNothing bool
	// sharder names the shards; nil for a kind that is listed as a whole.
	sharder Sharder
	kind    string
	// version is the version of the type; 0 if it has none.
	version int
}

var _ handler = (*controllerAdapter[Object])(nil)

func (a *controllerAdapter[T]) Kind() string { return a.kind }

func (a *controllerAdapter[T]) Work(ctx context.Context, task *activities.Task) activities.Outcome {
	return a.callController(ctx, OperationWork, task, a.controller.Work)
}

// callController calls a method of the controller for a task. A panic is a failure.
func (a *controllerAdapter[T]) callController(
	ctx context.Context, operation Operation, task *activities.Task, method func(context.Context, *Resource[T]) error,
) activities.Outcome {
	resource, err := a.decodeResource(task)
	if err != nil {
		return activities.Outcome{Verdict: activities.VerdictUndecodable, Error: err.Error()}
	}
	call := &Call{
		Operation: operation, Kind: a.kind, Resources: []*deltatype.ResourceRow{resource.ResourceRow}, carriers: []string{task.Carrier},
	}
	return outcomeOf(callWithMiddleware(ctx, call, func(ctx context.Context) error { return method(ctx, resource) }))
}

func (a *controllerAdapter[T]) Finalizes() bool {
	_, ok := findInterface[Finalizer[T]](a.controller)
	return ok
}

func (a *controllerAdapter[T]) Finalize(ctx context.Context, task *activities.Task) activities.Outcome {
	finalizer, _ := findInterface[Finalizer[T]](a.controller)
	outcome := a.callController(ctx, OperationFinalize, task, finalizer.Finalize)
	if outcome.Verdict == activities.VerdictSynced || outcome.Verdict == activities.VerdictDeleted {
		return activities.Outcome{Verdict: activities.VerdictFinalized, Err: outcome.Err}
	}
	return outcome
}

func (a *controllerAdapter[T]) WorksBatches() bool {
	_, ok := findInterface[BatchWorker[T]](a.controller)
	return ok
}

func (a *controllerAdapter[T]) WorkBatch(ctx context.Context, tasks []*activities.Task) []activities.Outcome {
	outcomes := make([]activities.Outcome, len(tasks))
	call := &Call{Operation: OperationWorkBatch, Kind: a.kind}
	var resources []*Resource[T]
	var at []int
	for i, task := range tasks {
		resource, err := a.decodeResource(task)
		if err != nil {
			outcomes[i] = activities.Outcome{Verdict: activities.VerdictUndecodable, Error: err.Error()}
			continue
		}
		resources, at = append(resources, resource), append(at, i)
		call.Resources, call.carriers = append(call.Resources, resource.ResourceRow), append(call.carriers, task.Carrier)
	}
	if len(resources) == 0 {
		return outcomes
	}
	worker, _ := findInterface[BatchWorker[T]](a.controller)
	err := callWithMiddleware(ctx, call, func(ctx context.Context) error {
		call.Results = worker.WorkBatch(ctx, resources)
		return nil
	})
	if err == nil && len(call.Results) != len(resources) {
		err = fmt.Errorf("WorkBatch was given %d resources and returned %d results", len(resources), len(call.Results))
	}
	for i := range at {
		result := err
		if err == nil {
			result = call.Results[i]
		}
		outcomes[at[i]] = outcomeOf(result)
	}
	return outcomes
}

// outcomeOf converts an error that Work returned. If the error's own methods panic, such as for a nil pointer in an error,
// only its resource fails.
func outcomeOf(err error) (outcome activities.Outcome) {
	if err == nil {
		return activities.Outcome{Verdict: activities.VerdictSynced}
	}
	defer func() {
		if v := recover(); v != nil {
			outcome = activities.Outcome{
				Verdict: activities.VerdictFailed,
				Error:   fmt.Sprintf("panic in the methods of the error that was returned, a %T: %v", err, v),
				Trace:   string(debug.Stack()),
			}
		}
	}()
	outcome = activities.Outcome{Verdict: activities.VerdictFailed, Error: err.Error(), Err: err}
	if panicked := new(PanicError); errors.As(err, &panicked) {
		outcome.Trace = panicked.Stack
		return outcome
	}
	deleted, degraded, snoozed := new(ResourceDeleteError), new(ResourceDegradeError), new(ResourceSnoozeError)
	switch {
	case errors.As(err, &deleted):
		outcome.Verdict = activities.VerdictDeleted
	case errors.As(err, &degraded):
		outcome.Verdict = activities.VerdictDegraded
	case errors.As(err, &snoozed):
		outcome.Verdict, outcome.SnoozeFor, outcome.SnoozeScope = activities.VerdictSnoozed, snoozed.duration, snoozed.scope
	}
	return outcome
}

func (a *controllerAdapter[T]) WorkTimeout(task *activities.Task) (timeout time.Duration) {
	// The call of Work handles a row that does not decode, and a method that panics.
	defer func() { _ = recover() }()
	resource, err := a.decodeResource(task)
	if err != nil {
		return 0
	}
	return a.controller.ResourceTimeout(resource)
}

// decodeResource returns the argument of user code for a task.
func (a *controllerAdapter[T]) decodeResource(task *activities.Task) (*Resource[T], error) {
	if made, ok := task.Decoded.(*Resource[T]); ok {
		return made, nil
	}
	if task.Undecoded != nil {
		return nil, task.Undecoded
	}
	object, err := a.decodeStored(task.Row.ObjectVersion, task.Row.EncodedObject, task.Row.ObjectID)
	if err != nil && task.IsEncoded {
		err = a.hideContent(err)
	}
	if err != nil {
		return nil, err
	}
	resource := &Resource[T]{ResourceRow: task.Row, Object: object, completeTx: task.CompleteTx}
	task.Decoded = resource
	return resource, nil
}

// hideContent returns an error for the row and the log, in place of one that may have a part of an object that is stored
// encoded: a number, or the text of a time.
func (a *controllerAdapter[T]) hideContent(err error) error {
	if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
		return fmt.Errorf("the stored object does not decode into %s: its field %q is of another type than %s", reflect.TypeFor[T](), wrong.Field, wrong.Type)
	}
	return fmt.Errorf("the stored object does not decode into %s. The reason is not stored, because it may have a part of the object, which is encoded: "+
		"delta.GetAs returns it", reflect.TypeFor[T]())
}

// decodeStored decodes a stored object that a given version of its type wrote. It returns an error if the object cannot be
// understood, or has another id after decoding: JSON of a type with other names decodes without an error, into an empty
// object.
func (a *controllerAdapter[T]) decodeStored(version int, encoded []byte, objectID string) (object T, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("decoding the stored object into %s panics: %v", reflect.TypeFor[T](), v)
		}
	}()
	switch {
	case version > a.version:
		return object, fmt.Errorf("the stored object is of version %d of its type, and %s here is of version %d", version, reflect.TypeFor[T](), a.version)
	case version < a.version:
		upgrader, ok := findInterface[Upgrader](a.controller)
		if !ok {
			break
		}
		if encoded, err = upgrader.Upgrade(version, encoded); err != nil {
			return object, fmt.Errorf("upgrading the stored object from version %d to %d: %w", version, a.version, err)
		}
	}
	if object, err = decodeObject[T](encoded); err != nil {
		return object, fmt.Errorf("the stored object does not decode into %s: %w", reflect.TypeFor[T](), err)
	}
	if id := object.ID(); id != objectID {
		return object, fmt.Errorf("the stored object decodes into a %s with the id %q", reflect.TypeFor[T](), id)
	}
	return object, nil
}

// decodeObject is decodeStored without the type, for comparisons.
func (a *controllerAdapter[T]) decodeObject(version int, encoded []byte, objectID string) (Object, error) {
	return a.decodeStored(version, encoded, objectID)
}

func (a *controllerAdapter[T]) Encode(encoded, options []byte) (params deltatype.ObjectInformParams, err error) {
	var opts struct {
		Namespace   string          `json:"namespace"`
		Move        bool            `json:"move_namespace"`
		Metadata    json.RawMessage `json:"metadata"`
		MaxAttempts int16           `json:"max_attempts"`
		Priority    int16           `json:"priority"`
		Tags        []string        `json:"tags"`

		Force        bool `json:"force"`
		SyncMetadata bool `json:"sync_metadata"`
	}
	if len(options) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(options))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&opts); err != nil {
			return params, fmt.Errorf("the options of the inform: %w", err)
		}
	}
	object, err := decodeObject[T](encoded)
	if err != nil {
		return params, fmt.Errorf("the object of the inform does not decode into %s: %w", reflect.TypeFor[T](), err)
	}
	return encodeForKind(a.kind, object, &InformOpts{
		Namespace: opts.Namespace, MoveNamespace: opts.Move, Metadata: opts.Metadata, MaxAttempts: opts.MaxAttempts, Priority: opts.Priority, Tags: opts.Tags,
		Force: opts.Force, SyncMetadata: opts.SyncMetadata,
	}, a.decodeObject)
}
