package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Command names a command for a resource, from a signal or a caller.
type Command string

const (
	// CommandInform informs an object.
	CommandInform Command = "inform"
	// CommandInvalidate makes a synced resource expire now.
	CommandInvalidate Command = "invalidate"
	// CommandRetry tries a degraded resource, or a failed one that waits, again at once.
	CommandRetry Command = "retry"
	// CommandDelete marks the resource deleted.
	CommandDelete Command = "delete"
	// CommandSync syncs the resource now, even if it waits for something else.
	CommandSync Command = "sync"
	// CommandRevive syncs a deleted resource again.
	CommandRevive Command = "revive"
	// CommandTouch means that something has changed outside: a call of Work that begins after the command syncs the
	// resource. No signal has its name.
	CommandTouch Command = "touch"
)

// Commands returns the commands that are names of signals.
func Commands() []Command {
	return []Command{CommandInform, CommandInvalidate, CommandRetry, CommandDelete, CommandSync, CommandRevive}
}

// Refused is the type of the error of a command that cannot be carried out: its payload is wrong, or the state does not
// allow it.
const Refused = "delta.Refused"

// CommandInput is a command for a resource.
type CommandInput struct {
	Ref
	Command Command `json:"command"`
	// Payload is the signal's payload: {"object": {...}, "options": {...}} for inform, nothing for the others.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// CommandResult is the result of a command.
type CommandResult struct {
	// Generation is the generation that the command started.
	Generation int64 `json:"generation"`
}

// Command carries out a signal's command. The error of one that cannot be carried out is not retried.
func (a *Activities) Command(ctx context.Context, in CommandInput) (CommandResult, error) {
	if err := a.checkTarget(in.Installation, in.Kind); err != nil {
		return CommandResult{}, err
	}
	ref, err := a.resolveRef(ctx, in.Ref)
	if err != nil {
		return CommandResult{}, err
	}
	in.Ref = ref
	if in.Command == CommandInform {
		return a.commandInform(ctx, in)
	}
	row, err := RunCommand(ctx, a.Pool, in.Kind, in.ObjectID, in.Command, a.Retention)
	// No resource has an id that Postgres cannot store.
	if refused := new(deltatype.StateError); errors.As(err, &refused) || errors.Is(err, deltatype.ErrNotFound) || isUnstorable(err) {
		return CommandResult{}, temporal.NewNonRetryableApplicationError(err.Error(), Refused, nil)
	}
	if err != nil {
		return CommandResult{}, err
	}
	return CommandResult{Generation: row.Generation}, nil
}

// RunCommand carries out a command other than inform, for one resource. It returns a *[deltatype.StateError] where the
// state does not allow it, and [deltatype.ErrNotFound] where there is no such resource.
func RunCommand(ctx context.Context, conn db.DBTX, kind, objectID string, command Command, rest Retention) (db.Resource, error) {
	q := db.New()
	found, err := q.GetResource(ctx, conn, db.GetResourceParams{Kind: kind, ObjectID: objectID})
	if isNoRows(err) {
		err = deltatype.ErrNotFound
	}
	if err != nil {
		return found.Resource, fmt.Errorf("%s %s/%s: %w", command, kind, objectID, err)
	}
	ids, states := []int64{found.Resource.ID}, make([]string, 0, len(deltatype.ResourceStates()))
	for _, state := range deltatype.ResourceStates() {
		states = append(states, string(state))
	}
	var rows []db.Resource
	switch command {
	case CommandInvalidate:
		rows, err = q.InvalidateResources(ctx, conn, ids)
	case CommandRetry:
		rows, err = q.RetryResources(ctx, conn, db.RetryResourcesParams{Ids: ids, States: states})
	case CommandSync:
		rows, err = q.SyncResources(ctx, conn, ids)
	case CommandTouch:
		rows, err = q.TouchResources(ctx, conn, db.TouchResourcesParams{Ids: ids, States: states})
	case CommandDelete:
		rows, err = db.ResourcesOf(q.DeleteResources(ctx, conn, db.DeleteResourcesParams{Ids: ids, States: states, DefaultRetention: rest.DeletedRetention}))
	case CommandRevive:
		rows, err = db.ResourcesOf(q.ReviveResources(ctx, conn, ids))
	case CommandInform:
		return found.Resource, errors.New("an inform needs an object")
	default:
		return found.Resource, fmt.Errorf("command %q is not one of inform, invalidate, retry, delete, sync and revive", command)
	}
	if err != nil {
		return found.Resource, fmt.Errorf("%s %s/%s: %w", command, kind, objectID, err)
	}
	if len(rows) == 1 {
		return rows[0], nil
	}
	// The row may have changed between the two statements.
	if now, err := q.GetResource(ctx, conn, db.GetResourceParams{Kind: kind, ObjectID: objectID}); err == nil {
		found = now
	}
	return found.Resource, &deltatype.StateError{Command: string(command), Kind: kind, ObjectID: objectID, State: found.Resource.State}
}

func (a *Activities) commandInform(ctx context.Context, in CommandInput) (CommandResult, error) {
	refuse := func(err error) (CommandResult, error) {
		return CommandResult{}, temporal.NewNonRetryableApplicationError(err.Error(), Refused, nil)
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
		Coder:              a.Coder,
	})
	if isUnstorable(err) {
		return refuse(err) // another try would have the same object
	}
	if err != nil {
		return CommandResult{}, err
	}
	if refused := results[0].Refused; refused != nil {
		return refuse(refused)
	}
	return CommandResult{Generation: results[0].Resource.Generation}, nil
}

// resolveRef adds the object id of a resource that Temporal knows by its hash.
func (a *Activities) resolveRef(ctx context.Context, ref Ref) (Ref, error) {
	if ref.HashedID == "" {
		return ref, nil
	}
	row, err := db.New().ResourceOfHash(ctx, a.Pool, db.ResourceOfHashParams{Kind: ref.Kind, HashedID: &ref.HashedID})
	if err != nil && !isNoRows(err) {
		return ref, fmt.Errorf("finding %s by its hash: %w", ref.Kind, err)
	}
	ref.ObjectID, ref.ID = row.ObjectID, row.ID
	return ref, nil
}
