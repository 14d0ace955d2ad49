// Package kit gives deltatest, and no other package, access to internals of package delta. Its functions are set when package delta is initialized.
package kit

import (
	"context"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Kind is a kind as a client works it, without a database.
type Kind struct {
	// Activities have what the settings of the kind and the Config decide.
	Activities *activities.Activities
	// Encode turns an object into what an inform of it writes, with its *delta.InformOpts.
	Encode func(object deltatype.Object, opts any) (deltatype.ObjectInformParams, error)
	// Decode turns what is stored of an object into what Work is given.
	Decode func(version int, encoded []byte, id string) (deltatype.Object, error)
}

var (
	// Open returns the only kind of a *delta.Controllers, with the settings and the Config of a *delta.Client, which may be nil.
	Open func(controllers, client any) *Kind
	// CheckInformOptions checks what an informer is given.
	CheckInformOptions func(*deltatype.InformOptions) error
	// Encode is Kind.Encode without a controller.
	Encode func(object deltatype.Object) (deltatype.ObjectInformParams, error)
	// InputError makes a *delta.InputError.
	InputError func(field string, value any, rule string, args ...any) error
	// RetryUnavailable repeats a call to Temporal while the server is unavailable, until ctx ends.
	RetryUnavailable func(ctx context.Context, call func() error) error
	// SchemaError wraps delta.ErrNoSchema around errors of a schema that is missing or old.
	SchemaError func(error) error
)
