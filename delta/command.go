package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// ErrNotFound is wrapped in errors of calls that name a resource which does not exist.
var ErrNotFound = deltatype.ErrNotFound

// NamespaceError is returned for an object that names another namespace than its resource has. Match it with errors.As.
type NamespaceError = deltatype.NamespaceError

// ParentCycleError is returned for an object whose parents lead back to it; see [deltatype.ParentCycleError].
type ParentCycleError = deltatype.ParentCycleError

// StateError is returned if the state of a resource does not allow the command. Match it with errors.As. See [the table of
// states].
//
// [the table of states]: https://github.com/chariot-giving/delta/blob/main/docs/concepts.md#states
type StateError = deltatype.StateError

// Invalidate marks a synced resource expired, so that it is synced again at once. It returns [ErrNotFound] if the object
// has no resource, and a *[StateError] if the resource is not synced. Only ID and Kind of the object matter.
func (c *Client) Invalidate(ctx context.Context, object Object) (*deltatype.ResourceRow, error) {
	kind, id, err := identifyObject(object)
	if err != nil {
		return nil, fmt.Errorf("delta: invalidate: %w", err)
	}
	return c.runCommand(ctx, activities.CommandInvalidate, kind, id)
}

// Retry syncs a degraded resource, or a failed one that waits for its next attempt, again at once, and resets its attempt
// counter. It returns [ErrNotFound], or a *[StateError] for a resource in another state.
func (c *Client) Retry(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.runCommand(ctx, activities.CommandRetry, kind, objectID)
}

// Touch syncs a resource again because something has changed outside. It is for a webhook that brings an id and no object:
// Work reads the object itself. A call of Work begins after Touch even if one is running, because that one may have read
// the old object. Touches before that call share it. It returns [ErrNotFound] if there is no resource, and a *[StateError]
// for a deleted one.
//
// Do not inform an object with only an id instead: an inform replaces the whole stored object.
func (c *Client) Touch(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.runCommand(ctx, activities.CommandTouch, kind, objectID)
}

// Delete marks a resource deleted, in any state. It is no longer worked, and an informer does not bring it back; an
// explicit inform or [Client.Revive] does. Its row is removed after the retention period of deleted resources, counted from
// when an informer listed it last ([Config].DeletedResourceRetentionPeriod). Nothing outside is deleted. It returns
// [ErrNotFound], or a *[StateError] for a resource that is deleted already.
func (c *Client) Delete(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	row, err := c.runCommand(ctx, activities.CommandDelete, kind, objectID)
	if err == nil {
		c.events.publishRow(EventCategoryObjectDeleted, row)
	}
	return row, err
}

// Revive syncs a deleted resource again, as it was last informed. Without it, a resource that Work or [Client.Delete]
// deleted stays deleted until it is informed explicitly. It returns [ErrNotFound], or a *[StateError] for a resource that
// is not deleted.
func (c *Client) Revive(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.runCommand(ctx, activities.CommandRevive, kind, objectID)
}

// runCommand runs a command for one resource, and wakes the dispatchers of its kind.
func (c *Client) runCommand(ctx context.Context, command activities.Command, kind, objectID string) (*deltatype.ResourceRow, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: %s: %w", command, err)
	}
	row, err := activities.RunCommand(ctx, c.pool, kind, objectID, command, c.defaultRetention())
	if err != nil {
		return nil, fmt.Errorf("delta: %w", schemaError(err))
	}
	c.wakeKind(kind, 1)
	return c.rowOf(ctx, &row)
}

// Pause keeps a resource from being worked until [Client.Resume]. Informs are stored meanwhile, and a running attempt goes
// on to its end. The resource does not expire, and its row is not removed, while it is paused. It returns [ErrNotFound].
func (c *Client) Pause(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.setPaused(ctx, kind, objectID, true)
}

// Resume ends the pause of a resource, which goes on from its current state. It returns [ErrNotFound].
func (c *Client) Resume(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.setPaused(ctx, kind, objectID, false)
}

// pauseVerb is "pause" or "resume", for errors.
func pauseVerb(paused bool) string {
	if paused {
		return "pause"
	}
	return "resume"
}

func (c *Client) setPaused(ctx context.Context, kind, objectID string, paused bool) (*deltatype.ResourceRow, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: %s: %w", pauseVerb(paused), err)
	}
	row, err := db.New().PauseResource(ctx, c.pool, db.PauseResourceParams{Kind: kind, ObjectID: objectID, Paused: paused})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("delta: %s %s/%s: %w", pauseVerb(paused), kind, objectID, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("delta: %s %s/%s: %w", pauseVerb(paused), kind, objectID, schemaError(err))
	}
	c.wakeKind(kind, 1)
	return c.rowOf(ctx, &row)
}

// PauseKind keeps all resources of a kind from being worked, by any client, until [Client.ResumeKind]. Informs are stored
// meanwhile, running attempts go on to their end, and the informer goes on listing. A kind can be paused before any client
// has started with it, so a misspelled name is no error.
func (c *Client) PauseKind(ctx context.Context, kind string) error {
	return c.setKindPaused(ctx, kind, true)
}

// ResumeKind ends the pause of a kind; its resources go on from their current states. It also ends a snooze of the kind
// ([SnoozeKind]), except for a resource whose Work returned the snooze: that one waits for its own time.
func (c *Client) ResumeKind(ctx context.Context, kind string) error {
	return c.setKindPaused(ctx, kind, false)
}

func (c *Client) setKindPaused(ctx context.Context, kind string, paused bool) error {
	if err := checkName("kind", kind); err != nil {
		return fmt.Errorf("delta: %s: %w", pauseVerb(paused), err)
	}
	err := db.New().PauseKind(ctx, c.pool, db.PauseKindParams{Name: kind, Paused: paused})
	if err == nil && !paused {
		err = c.makeDispatchable(ctx, kind, "", activities.LongestLease)
	}
	if err != nil {
		return fmt.Errorf("delta: %s kind %s: %w", pauseVerb(paused), kind, schemaError(err))
	}
	c.wakeKind(kind, 1)
	return nil
}

// ResumeNamespace ends a snooze of a namespace ([SnoozeNamespace]), except for a resource whose Work returned the snooze.
// It does nothing if the namespace is not snoozed.
func (c *Client) ResumeNamespace(ctx context.Context, namespace string) error {
	if err := checkName("namespace", namespace); err != nil {
		return fmt.Errorf("delta: resume: %w", err)
	}
	if err := c.endNamespaceSnooze(ctx, namespace); err != nil {
		return fmt.Errorf("delta: resume namespace %s: %w", namespace, schemaError(err))
	}
	return nil
}

func (c *Client) endNamespaceSnooze(ctx context.Context, namespace string) error {
	lasts, err := db.New().WakeNamespace(ctx, c.pool, namespace)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	longest := max(lasts, activities.LongestLease) // dispatchers have put off due rows until its end
	controllers, err := db.New().ListControllers(ctx, c.pool)
	if err != nil {
		return err
	}
	for _, kind := range controllers {
		if err := c.makeDispatchable(ctx, kind.Name, namespace, longest); err != nil {
			return err
		}
		c.wakeKind(kind.Name, 1)
	}
	return nil
}

// Snooze is a kind or a namespace in which no Work begins until a time, because Work has returned [SnoozeKind] or
// [SnoozeNamespace].
type Snooze struct {
	// Kind or Namespace is snoozed; the other is empty.
	Kind, Namespace string
	// Until is when the waiting resources begin to come back.
	Until time.Time
}

// Snoozes returns the snoozed kinds and namespaces: kinds first, by name.
func (c *Client) Snoozes(ctx context.Context) ([]Snooze, error) {
	rows, err := db.New().ListSnoozes(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: snoozes: %w", schemaError(err))
	}
	all := make([]Snooze, len(rows))
	for i, row := range rows {
		all[i].Until = row.Until.UTC()
		if row.IsKind {
			all[i].Kind = row.Name
		} else {
			all[i].Namespace = row.Name
		}
	}
	return all, nil
}

// makeDispatchable makes rows dispatchable that came due while their kind or namespace was paused or snoozed, page by page.
// An empty namespace means all. longest is the latest time from now at which such a row would be dispatched otherwise.
func (c *Client) makeDispatchable(ctx context.Context, kind, namespace string, longest time.Duration) error {
	due, err := db.New().DueForDispatch(ctx, c.pool, db.DueForDispatchParams{Kind: kind, Namespace: namespace, Longest: longest})
	if err != nil {
		return err
	}
	for page := range slices.Chunk(due, redispatchPage) {
		if err := db.New().DispatchNow(ctx, db.Planned(c.pool, len(page)), page); err != nil {
			return err
		}
		c.wakeKind(kind, len(page))
	}
	return nil
}
