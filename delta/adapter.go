package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

type handler = activities.Handler

// controllerAdapter erases a controller's type: the only place where rows become objects and objects rows.
type controllerAdapter[T Object] struct {
	controller Controller[T]
	kind       string
}

var _ handler = (*controllerAdapter[Object])(nil)

func (a *controllerAdapter[T]) Kind() string { return a.kind }

func (a *controllerAdapter[T]) Work(ctx context.Context, row *deltatype.ResourceRow) (outcome activities.Outcome) {
	defer func() {
		if v := recover(); v != nil {
			outcome = activities.Outcome{
				Verdict: activities.VerdictFailed,
				Error:   fmt.Sprintf("panic: %v", v),
				Trace:   string(debug.Stack()),
			}
		}
	}()
	resource, err := a.resource(row)
	if err != nil {
		return activities.Outcome{Verdict: activities.VerdictFailed, Error: err.Error()}
	}
	return outcomeOf(a.controller.Work(ctx, resource))
}

// outcomeOf reads the error that Work returned.
func outcomeOf(err error) activities.Outcome {
	if err == nil {
		return activities.Outcome{Verdict: activities.VerdictSynced}
	}
	verdict := activities.VerdictFailed
	if deleted := new(ResourceDeleteError); errors.As(err, &deleted) {
		verdict = activities.VerdictDeleted
	}
	return activities.Outcome{Verdict: verdict, Error: err.Error()}
}

func (a *controllerAdapter[T]) WorkTimeout(row *deltatype.ResourceRow) (timeout time.Duration) {
	// A row that does not decode, or a method that panics, is dealt with where Work is called.
	defer func() { _ = recover() }()
	resource, err := a.resource(row)
	if err != nil {
		return 0
	}
	return a.controller.ResourceTimeout(resource)
}

// resource is a copy: what user code does to it does not reach the row that the outcome is written for.
func (a *controllerAdapter[T]) resource(row *deltatype.ResourceRow) (*Resource[T], error) {
	object, err := zeroObject[T]()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(row.EncodedObject, &object); err != nil {
		return nil, fmt.Errorf("the stored object does not decode into %T: %w", object, err)
	}
	clone := *row
	return &Resource[T]{ResourceRow: &clone, Object: object}, nil
}

func (a *controllerAdapter[T]) Inform(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed {
	out := make(chan activities.Listed)
	go func() {
		defer close(out)
		if err := a.list(ctx, options, out); err != nil {
			send(ctx, out, activities.Listed{Err: err, Fatal: true})
		}
	}()
	return out
}

func (a *controllerAdapter[T]) list(ctx context.Context, options deltatype.InformOptions, out chan<- activities.Listed) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	objects, err := a.controller.Inform(ctx, &options)
	if err != nil {
		return err
	}
	if objects == nil {
		return errors.New("the informer returned neither a channel nor an error")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case object, more := <-objects:
			if !more {
				return nil
			}
			params, err := encode(object, nil)
			if err == nil && params.Kind != a.kind {
				err = inputError("kind", params.Kind, "must be the controller's kind, %q", a.kind)
			}
			send(ctx, out, activities.Listed{Params: params, Err: err})
		}
	}
}

func send(ctx context.Context, out chan<- activities.Listed, item activities.Listed) {
	select {
	case <-ctx.Done():
	case out <- item:
	}
}

func (a *controllerAdapter[T]) InformTimeout() (timeout time.Duration) {
	defer func() { _ = recover() }()
	return a.controller.InformTimeout(&InformArgs[T]{ResourceKind: a.kind})
}
