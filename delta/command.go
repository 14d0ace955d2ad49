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

// ErrNotFound is wrapped in errors of calls that name a resource which is not there.
var ErrNotFound = deltatype.ErrNotFound

// NamespaceError is returned for an object that names another namespace than its resource has. Match it with errors.As.
type NamespaceError = deltatype.NamespaceError

// ParentCycleError is returned for an object whose parents lead back to it; see [deltatype.ParentCycleError].
type ParentCycleError = deltatype.ParentCycleError

// StateError is returned where the state of a resource does not allow what was asked for. Match it with errors.As.
type StateError = deltatype.StateError

// Invalidate marks a synced resource expired and has it synced again at once. It returns [ErrNotFound] where there is no
// resource of the object, and a *[StateError] where it is in another state than synced. Only ID and Kind of the object matter.
func (c *Client) Invalidate(ctx context.Context, object Object) (*deltatype.ResourceRow, error) {
	kind, id, err := identifyObject(object)
	if err != nil {
		return nil, fmt.Errorf("delta: invalidate: %w", err)
	}
	return c.runCommand(ctx, activities.CommandInvalidate, kind, id)
}

// Retry has one degraded resource, or a failed one that waits, tried again at once, with all of its attempts before it. It
// returns [ErrNotFound], or a *[StateError] for a resource in another state.
func (c *Client) Retry(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.runCommand(ctx, activities.CommandRetry, kind, objectID)
}

// Touch has a resource synced because something has changed outside, for a webhook that brings an id and no object: Work looks for
// itself. A call of Work begins after Touch, also if one is under way: that one may have read what was there before. Many touches before that are
// one sync. It returns [ErrNotFound] where there is no resource, and a *[StateError] for one that is deleted.
//
// Do not inform an object that has only its id for this: what is informed replaces the whole object.
func (c *Client) Touch(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.runCommand(ctx, activities.CommandTouch, kind, objectID)
}

// Delete marks a resource deleted, whatever state it is in: it is not worked on any longer, an informer does not bring it
// back ([Client.Revive] and an explicit inform do), and its row is removed after the retention period of deleted resources, counted from when an
// informer listed it last ([Config].DeletedResourceRetentionPeriod). What is outside is left as it is. It returns
// [ErrNotFound], or a *[StateError] for a resource that is deleted already.
func (c *Client) Delete(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	row, err := c.runCommand(ctx, activities.CommandDelete, kind, objectID)
	if err == nil {
		c.events.publishRow(EventCategoryObjectDeleted, row)
	}
	return row, err
}

// Revive has a deleted resource synced again, as it was informed last: what Work or [Client.Delete] deleted stays so otherwise until it is
// informed explicitly. It returns [ErrNotFound], or a *[StateError] for a resource that is not deleted.
func (c *Client) Revive(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.runCommand(ctx, activities.CommandRevive, kind, objectID)
}

// runCommand carries out a command for one resource, and wakes the dispatchers of its kind.
func (c *Client) runCommand(ctx context.Context, command activities.Command, kind, objectID string) (*deltatype.ResourceRow, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: %s: %w", command, err)
	}
	row, err := activities.RunCommand(ctx, c.pool, kind, objectID, command, c.defaultRetention())
	if err != nil {
		return nil, fmt.Errorf("delta: %w", schemaError(err))
	}
	c.wakeKind(kind, 1)
	return row.Row()
}

// Pause keeps a resource from being worked on until [Client.Resume]. What is informed of it meanwhile is kept, and an attempt
// that runs already goes on to its end. It does not expire, and its row is not removed, before it is resumed. It returns [ErrNotFound].
func (c *Client) Pause(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.setPaused(ctx, kind, objectID, true)
}

// Resume has a paused resource go on where it stands. It returns [ErrNotFound].
func (c *Client) Resume(ctx context.Context, kind, objectID string) (*deltatype.ResourceRow, error) {
	return c.setPaused(ctx, kind, objectID, false)
}

// pauseVerb names what Pause and Resume do, in errors.
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
	return row.Row()
}

// PauseKind keeps all resources of a kind from being worked on, by any client, until [Client.ResumeKind]. Informs are kept,
// attempts that run go on to their end, and the informer goes on listing. A kind that no client has started with yet can be paused
// before one does: a name that is misspelled is no error.
func (c *Client) PauseKind(ctx context.Context, kind string) error {
	return c.setKindPaused(ctx, kind, true)
}

// ResumeKind has the resources of a kind go on where they stand. It ends a snooze of the kind ([SnoozeKind]) as well; a resource whose Work
// has returned that itself waits for its own time.
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

// ResumeNamespace ends a snooze of a namespace ([SnoozeNamespace]): its resources go on where they stand, but for one whose Work has
// returned that itself. A namespace that is not snoozed is left as it is.
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
	longest := max(lasts, activities.LongestLease) // dispatchers have put off what was due until its end
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

// Snooze is a kind or a namespace in which no Work begins until a time, because its Work has returned [SnoozeKind] or [SnoozeNamespace].
type Snooze struct {
	// Kind or Namespace is what is snoozed; the other is empty.
	Kind, Namespace string
	// Until is when what waits begins to come back.
	Until time.Time
}

// Snoozes reads what is snoozed: kinds first, by name.
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

// makeDispatchable has what came due while a kind was paused or snoozed, or a namespace (empty for all of them), looked at, page by page. None was to be
// looked at later than longest from now.
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

// wakeKind wakes the dispatcher of a kind, of this client or of others, for so many rows that a statement has made due.
func (c *Client) wakeKind(kind string, due int) {
	if !c.wakeOwnDispatcher(kind, due) {
		c.notifier.notifySoon(kind)
	}
}

// detectsDeletions reports whether listings of the kind show what is gone, by the rows that they leave out.
func (s ObjectSettings) detectsDeletions() bool {
	return s.CompleteListing || s.FullListingInterval > 0
}

// noticesDeletions reports whether it is noticed of the kind what is gone, by listings or by a source: as long as there are rows.
func (r registered) noticesDeletions() bool {
	return r.settings.detectsDeletions() || len(r.sources) > 0
}

// kindRetention is rest for a kind that the client has a controller for.
func (c *Client) kindRetention(r registered) activities.Rest {
	rest := c.defaultRetention()
	rest.DegradedRetry = postgresInterval(r.settings.DegradedRetryInterval)
	if r.noticesDeletions() && !c.retained.client {
		rest.SyncedRetention = postgresInterval(-1)
	}
	return rest
}

// defaultRetention is what holds for namespaces that no client has configured.
func (c *Client) defaultRetention() activities.Rest {
	return activities.Rest{
		SyncedRetention:   postgresInterval(c.config.SyncedResourceRetentionPeriod),
		DegradedRetention: postgresInterval(c.config.DegradedResourceRetentionPeriod),
		DeletedRetention:  postgresInterval(c.config.DeletedResourceRetentionPeriod),
	}
}
