package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Action is what a signal or an update asks of a resource.
type Action string

const (
	// ActionInform informs an object.
	ActionInform Action = "inform"
	// ActionInvalidate has a synced resource synced again.
	ActionInvalidate Action = "invalidate"
	// ActionRetry has a degraded resource, or a failed one that waits, tried again at once.
	ActionRetry Action = "retry"
	// ActionDelete marks the resource deleted.
	ActionDelete Action = "delete"
	// ActionSync has the resource synced now, whatever it waits for.
	ActionSync Action = "sync"
)

// Actions returns those that signals are named for.
func Actions() []Action { return []Action{ActionInform, ActionInvalidate, ActionRetry, ActionDelete} }

// Refused is the type of the error of an action that cannot be done: its payload is wrong, or the state does not allow it.
const Refused = "delta.Refused"

// SteerInput is an action on a resource.
type SteerInput struct {
	Ref
	Action Action `json:"action"`
	// Payload is that of the signal: {"object": {...}, "options": {...}} for inform, nothing for the others.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// SteerResult is what an action came to.
type SteerResult struct {
	// Generation is the one that it started.
	Generation int64 `json:"generation"`
}

// Steer does what a signal or an update asks for, in one statement. What cannot be done is an error that is not retried.
func (a *Activities) Steer(ctx context.Context, in SteerInput) (SteerResult, error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return SteerResult{}, err
	}
	ref, err := a.resolve(ctx, in.Ref)
	if err != nil {
		return SteerResult{}, err
	}
	in.Ref = ref
	if in.Action == ActionInform {
		return a.steerInform(ctx, in)
	}
	row, err := Steer(ctx, a.Pool, in.Kind, in.ObjectID, in.Action, a.Rest)
	if refused := new(deltatype.StateError); errors.As(err, &refused) || errors.Is(err, deltatype.ErrNotFound) {
		return SteerResult{}, temporal.NewNonRetryableApplicationError(err.Error(), Refused, nil)
	}
	if err != nil {
		return SteerResult{}, err
	}
	return SteerResult{Generation: row.Generation}, nil
}

// Steer is an action other than inform, on one resource. It returns a *[deltatype.StateError] where the state does not allow it,
// and [deltatype.ErrNotFound] where there is no such resource.
func Steer(ctx context.Context, conn db.DBTX, kind, objectID string, action Action, rest Rest) (db.Resource, error) {
	q := db.New()
	var row db.Resource
	var err error
	switch action {
	case ActionInvalidate:
		row, err = q.InvalidateResource(ctx, conn, db.InvalidateResourceParams{Kind: kind, ObjectID: objectID})
	case ActionRetry:
		row, err = q.RetryResource(ctx, conn, db.RetryResourceParams{Kind: kind, ObjectID: objectID})
	case ActionSync:
		row, err = q.SyncResource(ctx, conn, db.SyncResourceParams{Kind: kind, ObjectID: objectID})
	case ActionDelete:
		row, err = q.DeleteResource(ctx, conn, db.DeleteResourceParams{Kind: kind, ObjectID: objectID, DefaultRetention: rest.DeletedRetention})
	case ActionInform:
		return row, errors.New("an inform is not an action on a row")
	default:
		return row, fmt.Errorf("action %q is not one of inform, invalidate, retry, delete and sync", action)
	}
	if err == nil {
		return row, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return row, fmt.Errorf("%s %s/%s: %w", action, kind, objectID, err)
	}
	found, err := q.GetResource(ctx, conn, db.GetResourceParams{Kind: kind, ObjectID: objectID})
	if errors.Is(err, pgx.ErrNoRows) {
		err = deltatype.ErrNotFound
	}
	if err != nil {
		return row, fmt.Errorf("%s %s/%s: %w", action, kind, objectID, err)
	}
	return row, &deltatype.StateError{Action: string(action), Kind: kind, ObjectID: objectID, State: found.Resource.State}
}

func (a *Activities) steerInform(ctx context.Context, in SteerInput) (SteerResult, error) {
	refuse := func(err error) (SteerResult, error) {
		return SteerResult{}, temporal.NewNonRetryableApplicationError(err.Error(), Refused, nil)
	}
	var payload struct {
		Object  json.RawMessage `json:"object"`
		Options json.RawMessage `json:"options"`
	}
	if err := json.Unmarshal(in.Payload, &payload); err != nil || payload.Object == nil {
		return refuse(errors.New(`the payload of inform must be {"object": {...}, "options": {...}}, options may be left out`))
	}
	params, err := a.Handler.Encode(payload.Object, payload.Options)
	if err != nil {
		return refuse(err)
	}
	if params.ResourceID != in.ObjectID {
		return refuse(fmt.Errorf("the object's id is %q, but the workflow is that of %q", params.ResourceID, in.ObjectID))
	}
	results, err := db.InformRetrying(ctx, a.Pool, []deltatype.ObjectInformParams{params}, db.InformOptions{
		DefaultMaxAttempts: a.DefaultMaxAttempts,
		DefaultPriority:    deltatype.PriorityLive,
		Revive:             true,
	})
	if err != nil {
		return SteerResult{}, err
	}
	return SteerResult{Generation: results[0].Resource.Generation}, nil
}

// resolve finds the object id of a resource that Temporal knows by its hash.
func (a *Activities) resolve(ctx context.Context, ref Ref) (Ref, error) {
	if ref.HashedID == "" {
		return ref, nil
	}
	id, err := db.New().ObjectIDOfHash(ctx, a.Pool, db.ObjectIDOfHashParams{Kind: ref.Kind, HashedID: &ref.HashedID})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return ref, fmt.Errorf("finding %s by its hash: %w", ref.Kind, err)
	}
	ref.ObjectID = id
	return ref, nil
}
