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

// ListOpts describe the pass of an informer that [List] makes. Nil is the first pass of a kind.
type ListOpts struct {
	// Options are the options of the informer: After and Cursor as an earlier pass has left them (see [Listing].Next), and the others as a caller of
	// the informer sets them.
	//
	// Defaults to none: a listing of everything.
	Options delta.InformOptions

	// FullListing, ProcessExisting and RunForeground are passed to InformTimeout. FullListing needs Options without After and Cursor.
	//
	// Default to false.
	FullListing, ProcessExisting, RunForeground bool

	// Now is the time at which the pass begins; the next After is computed from it. User code still sees the real clock, and the timeout is real.
	//
	// Defaults to the current time.
	Now time.Time

	// Client is the same as in [WorkOpts]: ControllerInformTimeout, Kinds and Logger of its Config apply.
	//
	// Defaults to nil.
	Client *delta.Client
}

// Listing is the result of one pass of an informer.
type Listing[T delta.Object] struct {
	// Objects are the objects that would be informed, in the order of the listing, each as Work would get it.
	Objects []T
	// Refused are the invalid objects. They stop neither the pass nor the cursor.
	Refused []Refused
	// Next are the options of the next pass. After a pass that failed, or was narrowed by Labels or Limit, they are the options of this pass. Otherwise
	// After is the latest CreatedAt in the listing, or the time at which the pass began, less InformOverlap, and Cursor is the last one given to
	// [delta.SetCursor]. A kind with CompleteListing has neither.
	Next delta.InformOptions
}

// Refused is an invalid object of a listing.
type Refused struct {
	// ObjectID and Object are its id and its JSON, as far as they are known.
	ObjectID string
	Object   []byte
	// Err names the broken rule, mostly as a *[delta.InputError].
	Err error
}

// List runs a controller's informer ([delta.Lister] or [delta.Informer]) to its end, as a pass does, but without Postgres and Temporal. The informer's
// timeout, [delta.FailInform] and [delta.SetCursor] work as usual. opts may be nil. Pass Next to the following call to test incremental listings.
//
// The error is the one that fails the pass: that of the iterator, of FailInform, a panic, a timeout, or a controller that lists nothing. Then the
// cursor stays, nothing is marked deleted, and the listing has the objects before the error. The listing is nil only for an invalid option, or an
// error of [delta.AddControllerSafely].
//
// List does not compare objects with stored ones, and does not find errors that only Postgres reports.
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
	in.Options.After, in.Options.Cursor = nil, "" // RehearseListing gets them separately, as the kind's cursor
	rehearsed, failed := kind.Activities.RehearseListing(ctx, in, o.Options, o.Now)
	listing := &Listing[T]{Next: rehearsed.Next}
	for _, item := range rehearsed.Items {
		if err := listing.addItem(kind, item); err != nil {
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

func (l *Listing[T]) addItem(kind *kit.Kind, item activities.Listed) error {
	if item.Err != nil {
		l.Refused = append(l.Refused, Refused{ObjectID: item.Params.ResourceID, Object: item.Params.EncodedObject, Err: item.Err})
		return nil
	}
	object, err := decodeObject[T](kind, item.Params)
	if err != nil {
		return fmt.Errorf("%s/%s would be informed, but Work would not be called for it: %w", item.Params.Kind, item.Params.ResourceID, err)
	}
	l.Objects = append(l.Objects, object)
	return nil
}

// decodeObject returns an object as Work gets it.
func decodeObject[T delta.Object](kind *kit.Kind, params deltatype.ObjectInformParams) (object T, err error) {
	decoded, err := kind.Decode(int(params.ObjectVersion), params.EncodedObject, params.ResourceID)
	if err != nil {
		return object, err
	}
	return decoded.(T), nil
}
