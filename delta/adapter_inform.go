package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func (a *controllerAdapter[T]) ListsNothing() bool { return a.listsNothing }

func (a *controllerAdapter[T]) Inform(ctx context.Context, options deltatype.InformOptions) <-chan activities.Listed {
	out := make(chan activities.Listed)
	listing := &listing{failed: make(chan struct{})}
	ctx = context.WithValue(ctx, listingKey{}, listing)
	go func() {
		defer close(out)
		// err is sent if the controller ends its goroutine: that must not count as the end of the listing.
		err := errors.New("the informer ended its goroutine (runtime.Goexit)")
		defer func() {
			cursor, err := listing.endListing(err)
			switch {
			case err != nil:
				sendListed(ctx, out, activities.Listed{Err: describeListingError(err), Fatal: true})
			case cursor != nil:
				sendListed(ctx, out, activities.Listed{Cursor: cursor})
			}
		}()
		err = a.listWithMiddleware(ctx, options, listing, out)
	}()
	return out
}

// describeListingError adds the stack of a panic to err, so that Temporal shows it. The methods of the result do not panic.
func describeListingError(err error) error {
	err = guardError(err)
	if panicked := new(PanicError); errors.As(err, &panicked) {
		return fmt.Errorf("%w\n%s", err, panicked.Stack)
	}
	return err
}

var errNotListed = errors.New("a Middleware returned without calling next: nothing was listed")

// listWithMiddleware calls listObjects within the client's Middleware. A Middleware can fail a listing, but cannot complete
// a listing that failed or was not made, because the missing objects would count as gone.
func (a *controllerAdapter[T]) listWithMiddleware(
	ctx context.Context, options deltatype.InformOptions, listing *listing, out chan<- activities.Listed,
) error {
	listed := errNotListed
	call := &Call{Operation: OperationList, Kind: a.kind, Pass: &PassCall{
		WorkflowID: activities.WorkflowID(ctx), RunID: activities.RunID(ctx), Attempt: int(activities.ActivityTry(ctx)), Options: options,
	}}
	err := callWithMiddleware(ctx, call, func(ctx context.Context) error {
		listed = errNextExited // unless the controller returns
		if listed = a.listObjects(ctx, options, listing, out); listed == nil {
			listed = listing.informerError()
		}
		return listed
	})
	if err != nil {
		return err
	}
	return listed
}

// listObjects sends all objects that the controller lists. Nil means that the listing is complete, unless the informer has
// called FailInform.
func (a *controllerAdapter[T]) listObjects(
	ctx context.Context, options deltatype.InformOptions, listing *listing, out chan<- activities.Listed,
) (err error) {
	defer catchPanic(&err)
	if a.lister != nil {
		return a.sendIterator(ctx, options, listing, out)
	}
	objects, err := a.controller.Inform(ctx, &options)
	if err != nil {
		return err
	}
	if objects == nil {
		return errors.New("the informer returned neither a channel nor an error")
	}
	return a.sendChannel(ctx, objects, options.Shard, listing, out)
}

func (a *controllerAdapter[T]) sendIterator(
	ctx context.Context, options deltatype.InformOptions, listing *listing, out chan<- activities.Listed,
) error {
	objects := a.lister.List(ctx, &options)
	if objects == nil {
		return errors.New("List returned a nil iterator")
	}
	for object, err := range objects {
		if err != nil {
			return err
		}
		if ctx.Err() != nil || listing.hasFailed() {
			break
		}
		sendListed(ctx, out, a.encodeListed(object, options.Shard))
	}
	// An iterator that stopped because its context ended has not listed everything.
	return context.Cause(ctx)
}

func (a *controllerAdapter[T]) sendChannel(
	ctx context.Context, objects <-chan T, shard string, listing *listing, out chan<- activities.Listed,
) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-listing.failed:
			return nil // the end of the listing says why
		case object, more := <-objects:
			if !more {
				// An informer that closed its channel because the context ended has not listed everything.
				return context.Cause(ctx)
			}
			sendListed(ctx, out, a.encodeListed(object, shard))
		}
	}
}

// encodeListed returns an item of the listing. An invalid object comes with its id and its JSON, if it has them.
func (a *controllerAdapter[T]) encodeListed(object T, shard string) activities.Listed {
	params, err := encodeForKind(a.kind, object, nil, a.decodeObject)
	if err == nil {
		err = a.checkListedIn(shard, params.Shard)
	}
	if err != nil {
		params = describeInvalid(object)
	}
	return activities.Listed{Params: params, Err: err}
}

// describeInvalid returns the id and the JSON of an object that breaks a rule, as far as its methods return them.
func describeInvalid(object Object) (params deltatype.ObjectInformParams) {
	defer func() { _ = recover() }()
	params.ResourceID = object.ID()
	params.EncodedObject, _ = json.Marshal(object)
	return params
}

func sendListed(ctx context.Context, out chan<- activities.Listed, item activities.Listed) {
	select {
	case <-ctx.Done():
	case out <- item:
	}
}

func (a *controllerAdapter[T]) InformTimeout(in activities.InformInput) (timeout time.Duration) {
	defer func() { _ = recover() }()
	return a.controller.InformTimeout(&InformArgs[T]{
		ResourceKind: in.Kind, FullListing: in.FullListing, ProcessExisting: in.ProcessExisting, RunForeground: in.RunForeground, Options: &in.Options,
	})
}
