package delta

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// UndecodableError is returned for a stored object that does not decode into the requested type, because another version of
// the type wrote it. Match it with errors.As.
type UndecodableError struct {
	// Kind and ObjectID name the resource.
	Kind, ObjectID string
	err            error
}

// Error has the resource and the reason.
func (e *UndecodableError) Error() string { return e.Kind + "/" + e.ObjectID + ": " + e.err.Error() }

// Unwrap returns the reason.
func (e *UndecodableError) Unwrap() error { return e.err }

// GetAs is [Client.Get] with the object decoded into its type, which also names the kind. It decodes as the kind's
// controller does, if the client has it. It returns [ErrNotFound] if there is no resource, and an *[UndecodableError] if its
// object does not decode.
func GetAs[T Object](ctx context.Context, client *Client, id string) (*Resource[T], error) {
	kind, err := kindOf[T]()
	if err != nil {
		return nil, fmt.Errorf("delta: get: %w", err)
	}
	row, err := client.Get(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	resource, err := asResource[T](client, row)
	if err != nil {
		return nil, fmt.Errorf("delta: get: %w", err)
	}
	return resource, nil
}

// ListAs is [Client.List] with the objects decoded into their type, which also names the kind: the filter must name no
// other. Resources whose objects do not decode are in the page, too, with an empty Object, and the error beside the page
// has an *[UndecodableError] for each.
func ListAs[T Object](ctx context.Context, client *Client, filter Filter, page Page) ([]*Resource[T], error) {
	kind, err := kindOf[T]()
	if err != nil {
		return nil, fmt.Errorf("delta: list: %w", err)
	}
	for _, other := range filter.Kinds {
		if other != kind {
			return nil, fmt.Errorf("delta: list: %w", inputError("Kinds", other, "must be empty, or the kind of %s, %q", reflect.TypeFor[T](), kind))
		}
	}
	filter.Kinds = []string{kind}
	rows, err := client.List(ctx, filter, page)
	if err != nil {
		return nil, err
	}
	all, undecodable := make([]*Resource[T], len(rows)), []error(nil)
	for i, row := range rows {
		if all[i], err = asResource[T](client, row); err != nil {
			all[i], undecodable = &Resource[T]{ResourceRow: row}, append(undecodable, err)
		}
	}
	if len(undecodable) > 0 {
		return all, fmt.Errorf("delta: list: %w", errors.Join(undecodable...))
	}
	return all, nil
}

// kindOf returns the kind of a type of object.
func kindOf[T Object]() (kind string, err error) {
	zero, err := zeroObject[T]()
	if err != nil {
		return "", err
	}
	defer recoverObjectPanic(zero, &err)
	return zero.Kind(), nil
}

// asResource decodes a row as the controller of its kind does, or as a controller without Upgrade would.
func asResource[T Object](client *Client, row *deltatype.ResourceRow) (*Resource[T], error) {
	adapter, err := adapterOf[T](client, row.ObjectKind)
	if err != nil {
		return nil, err
	}
	if err := client.coder.DecodeRow(context.Background(), row); err != nil { // again, for the reason
		return nil, &UndecodableError{Kind: row.ObjectKind, ObjectID: row.ObjectID, err: err}
	}
	object, err := adapter.decodeStored(row.ObjectVersion, row.EncodedObject, row.ObjectID)
	if err != nil {
		return nil, &UndecodableError{Kind: row.ObjectKind, ObjectID: row.ObjectID, err: err}
	}
	return &Resource[T]{ResourceRow: row, Object: object}, nil
}

func adapterOf[T Object](client *Client, kind string) (*controllerAdapter[T], error) {
	if controllers := client.config.Controllers; controllers != nil {
		if there, ok := controllers.byKind[kind].handler.(*controllerAdapter[T]); ok {
			return there, nil
		}
	}
	zero, err := zeroObject[T]()
	if err != nil {
		return nil, err
	}
	version, err := versionOf(zero)
	return &controllerAdapter[T]{kind: kind, version: version}, err
}
