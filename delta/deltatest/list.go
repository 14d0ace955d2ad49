package deltatest

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/delta/internal/kit"
)

// ListOpts say which pass of an informer [List] makes. Nil is the first pass of a kind.
type ListOpts struct {
	// Options are what the informer is given: After and Cursor as an earlier pass has left them (see [Listing].Next), the others as somebody asks for
	// them.
	//
	// Defaults to none: everything.
	Options delta.InformOptions

	// FullListing, ProcessExisting and RunForeground are what InformTimeout is told of the pass. FullListing needs Options without After and Cursor.
	//
	// Default to false.
	FullListing, ProcessExisting, RunForeground bool

	// Now is when the pass begins, from which the next After is reckoned. It is no clock for user code; the timeout takes its real time.
	//
	// Defaults to the present.
	Now time.Time

	// Client is as in [WorkOpts]: ControllerInformTimeout, Kinds and Logger of its Config hold.
	//
	// Defaults to nil.
	Client *delta.Client
}

// Listing is what one pass of an informer has listed.
type Listing[T delta.Object] struct {
	// Objects are those that would be informed, each as Work would be given it, in the order in which they were listed.
	Objects []T
	// Refused are those that break a rule. They stop neither the others nor the cursor.
	Refused []Refused
	// Next are the options that the next pass would be given: those of this one after a pass that failed, or was narrowed by Labels or Limit. Otherwise After is
	// the latest CreatedAt that was listed, or the time at which the pass began, less InformOverlap, and Cursor is what [delta.SetCursor] has set. A kind with
	// CompleteListing is given neither.
	Next delta.InformOptions
}

// Refused is an object of a listing that breaks a rule.
type Refused struct {
	// ObjectID and Object are its id and its JSON, as far as they can be had.
	ObjectID string
	Object   []byte
	// Err says which rule, mostly as a *[delta.InputError].
	Err error
}

// List has a controller's informer ([delta.Lister] or [delta.Informer]) list what there is, and takes it to its end as a pass does, without Postgres and
// Temporal: with the informer's timeout, and with [delta.FailInform] and [delta.SetCursor]. opts may be nil. Pass Next to the following call to test
// incremental listings.
//
// The error is the one that the pass would fail with: that of the iterator, of FailInform, a panic, a timeout, a controller that lists nothing. The cursor stays
// then, and nothing is marked deleted. The listing has what was listed before. It is nil only beside the error of an option, or of [delta.AddControllerSafely].
//
// What is stored already is not compared, and what only Postgres refuses is taken.
func List[T delta.Object](ctx context.Context, controller delta.Controller[T], opts *ListOpts) (*Listing[T], error) {
	var o ListOpts
	if opts != nil {
		o = *opts
	}
	kind, err := openKind(controller, o.Client)
	if err == nil {
		err = checkList(o)
	}
	if err != nil {
		return nil, fmt.Errorf("deltatest: list: %w", err)
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	in := activities.InformInput{
		Kind: kind.Activities.Handler.Kind(), Options: o.Options,
		FullListing: o.FullListing, ProcessExisting: o.ProcessExisting, RunForeground: o.RunForeground,
	}
	in.Options.After, in.Options.Cursor = nil, "" // they are the kind's
	rehearsed, failed := kind.Activities.RehearseListing(ctx, in, o.Options, o.Now)
	listing := &Listing[T]{Next: rehearsed.Next}
	for _, item := range rehearsed.Items {
		if err := listing.take(kind, item); err != nil {
			return listing, fmt.Errorf("deltatest: list: %w", err)
		}
	}
	if failed != nil {
		return listing, fmt.Errorf("deltatest: list: %w", failed)
	}
	return listing, nil
}

func checkList(o ListOpts) error {
	switch {
	case o.FullListing && o.Options.After != nil:
		return kit.InputError("Options.After", o.Options.After, "must not be set together with FullListing, which lists everything")
	case o.FullListing && o.Options.Cursor != "":
		return kit.InputError("Options.Cursor", o.Options.Cursor, "must not be set together with FullListing, which lists everything")
	}
	return kit.CheckInformOptions(&o.Options)
}

func (l *Listing[T]) take(kind *kit.Kind, item activities.Listed) error {
	if item.Err != nil {
		l.Refused = append(l.Refused, Refused{ObjectID: item.Params.ResourceID, Object: item.Params.EncodedObject, Err: item.Err})
		return nil
	}
	object, err := decode[T](kind, item.Params)
	if err != nil {
		return fmt.Errorf("%s/%s would be informed, but Work would not be called for it: %w", item.Params.Kind, item.Params.ResourceID, err)
	}
	l.Objects = append(l.Objects, object)
	return nil
}

// decode is an object as Work is given it.
func decode[T delta.Object](kind *kit.Kind, params deltatype.ObjectInformParams) (object T, err error) {
	decoded, err := kind.Decode(int(params.ObjectVersion), params.EncodedObject, params.ResourceID)
	if err != nil {
		return object, err
	}
	return decoded.(T), nil
}
