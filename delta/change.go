package delta

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/chariot-giving/delta/db"
)

// ChangeType says what an entry of the log of changes is about.
type ChangeType string

const (
	// ChangeCreated is the first sync of a resource.
	ChangeCreated ChangeType = "created"
	// ChangeUpdated is a further one, also of the same object, as after an expiry.
	ChangeUpdated ChangeType = "updated"
	// ChangeFailed is a resource that has degraded. One that is tried again slowly has such an entry after each attempt in vain.
	ChangeFailed ChangeType = "failed"
	// ChangeDeleted is a resource that Work, a complete listing or a command has marked deleted.
	ChangeDeleted ChangeType = "deleted"
	// ChangeFinalized is a deleted resource whose Finalize has succeeded.
	ChangeFinalized ChangeType = "finalized"
	// ChangeRevived is a deleted resource that is live again, by an inform or a command, and is to be synced.
	ChangeRevived ChangeType = "revived"
)

// Change is an entry of the log of changes: a settled step of a resource whose kind has [ObjectSettings].Log.
type Change struct {
	// Position is where the entry stands in the log: readers that begin at it go on with the entry that follows.
	Position ChangePosition
	// ID is unique in the database. In the entries of a resource it rises.
	ID int64
	// Type says what happened.
	Type ChangeType
	// Kind, ObjectID and Namespace are those of the resource, and ResourceID is its row: an object that is informed after its row was removed has another.
	Kind, ObjectID, Namespace string
	ResourceID                int64
	// Generation is the one that has settled, SyncCount how often the resource was synced by then.
	Generation, SyncCount int64
	// Before is the object as it was synced last before, as JSON: nil where it was not, not since it was deleted, or not with the log. After is the object
	// that is synced, could not be, or is to be; nil after a deletion.
	Before, After json.RawMessage
	// Error is why it failed, or what Work has said as it deleted; empty otherwise.
	Error string
	// TraceParent and TraceState are those of the inform that made the generation, as Telemetry has carried them; empty for none.
	TraceParent, TraceState string
	// At is when the entry was written, which is before its transaction ended.
	At time.Time
}

// ChangePosition is a place in the log of changes, behind an entry. It can be stored as text; what it consists of may change. The empty one is before the
// oldest entry that is kept.
type ChangePosition string

// ChangePositionError is returned for a position from which the log cannot be read on without a gap. Match it with errors.As.
type ChangePositionError struct {
	// Position is the one that was given.
	Position ChangePosition
	// IsRewound is set where the log went back: the database was restored, or the position is of another one. Otherwise entries after the
	// position were removed: the reader was slower than [Config].MaxChangeRetentionPeriod, or than ChangeRetentionPeriod where its position
	// is not in the database.
	IsRewound bool
}

// Error says what happened, and what to do.
func (e *ChangePositionError) Error() string {
	why := "entries after it were removed (Config.ChangeRetentionPeriod, MaxChangeRetentionPeriod)"
	if e.IsRewound {
		why = "the database was restored, or it is of another database"
	}
	return fmt.Sprintf("the log of changes cannot be read on from position %q: %s. Take over what there is now, and begin at the oldest entry, which is the empty position",
		string(e.Position), why)
}

// changePlace is a position in numbers.
type logPosition struct {
	epoch int32
	xid   uint64
	id    int64
}

// isStart reports whether it is before all entries, of any epoch.
func (p logPosition) isStart() bool { return p == logPosition{} }

func (p logPosition) encode() ChangePosition {
	if p.isStart() {
		return ""
	}
	return ChangePosition(fmt.Sprintf("%d.%d.%d", p.epoch, p.xid, p.id))
}

func parseChangePosition(field string, position ChangePosition) (p logPosition, err error) {
	if position == "" {
		return p, nil
	}
	parts := strings.Split(string(position), ".")
	if len(parts) == 3 {
		epoch, notEpoch := strconv.ParseInt(parts[0], 10, 32)
		xid, notXid := strconv.ParseUint(parts[1], 10, 64)
		id, notID := strconv.ParseInt(parts[2], 10, 64)
		// Postgres keeps an xid8 without a sign, but pgx reads no more of it than that.
		if notEpoch == nil && notXid == nil && notID == nil && epoch > 0 && xid <= math.MaxInt64 && id >= 0 {
			return logPosition{int32(epoch), xid, id}, nil
		}
	}
	return p, inputError(field, string(position), "must be the Position of a Change, or empty for the oldest entry")
}

// changeReader reads pages of the log for some kinds, and for one member of a group.
type changeReader struct {
	client          *Client
	kinds           []string
	member, members int
	batch           int
	// removed is up to where entries had been removed when it began at the oldest: what is left of before may be behind that.
	removed logPosition
}

// changePage is a page that was read.
type changePage struct {
	changes []*Change
	// end is behind the last entry of the page, wanted or not; isEmpty is set where there is none.
	end     logPosition
	isEmpty bool
}

// readPage reads the page behind a place. It is planned each time: a plan from when the log was short reads all of it, for each page.
func (r *changeReader) readPage(ctx context.Context, from logPosition) (page changePage, err error) {
	rows, err := db.New().ReadChanges(ctx, db.Planned(r.client.pool, r.batch), db.ReadChangesParams{
		AfterXid: from.xid, AfterID: from.id, Kinds: orEmpty(r.kinds), Members: int64(r.members), Member: int64(r.member), Most: int32(r.batch), //nolint:gosec // it has a bound
	})
	if err != nil {
		return page, schemaError(err)
	}
	if len(rows) == 0 {
		return page, ErrNoSchema
	}
	first := rows[0]
	removed := logPosition{first.ChangeEpoch, first.RemovedXid, first.RemovedID}
	switch {
	case first.Restored, !from.isStart() && (first.Ahead || first.ChangeEpoch != from.epoch):
		return page, &ChangePositionError{Position: from.encode(), IsRewound: true}
	case from.isStart():
		r.removed = removed
	case first.Removed && r.removed != removed:
		return page, &ChangePositionError{Position: from.encode()}
	}
	if first.ID == 0 {
		return changePage{end: from, isEmpty: true}, nil
	}
	for i := range rows {
		row := &rows[i]
		page.end = logPosition{row.ChangeEpoch, row.OrderXid, row.ID}
		if row.Wanted {
			page.changes = append(page.changes, changeOf(row))
		}
	}
	return page, nil
}

type changeRow = db.ReadChangesRow

func changeOf(row *changeRow) *Change {
	c := &Change{
		Position: logPosition{row.ChangeEpoch, row.OrderXid, row.ID}.encode(), ID: row.ID, Type: ChangeType(row.Change), Kind: row.Kind, ObjectID: row.ObjectID,
		Namespace: row.Namespace, ResourceID: row.ResourceID, Generation: row.Generation, SyncCount: row.SyncCount,
		Before: jsonOrNil(row.Before), After: jsonOrNil(row.After), Error: row.Error, At: row.At.UTC(),
	}
	if row.Carrier != "" {
		if carried, err := readCarrier(row.Carrier); err == nil { // Work reads it too, and says what is wrong
			c.TraceParent, c.TraceState = carried.span["traceparent"], carried.span["tracestate"]
		}
	}
	return c
}

func jsonOrNil(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

const (
	defaultHistory = 100
	maxHistory     = 10_000
)

// ResourceChanges returns the entries of one object, the latest first: also those of rows that were removed, for as long as the log keeps them. It has what was
// committed, so it may be ahead of [Client.Changes]. before is the ID of an entry to go back from, 0 for the latest. The limit is 10,000 at most; 0 means 100.
func (c *Client) ResourceChanges(ctx context.Context, kind, objectID string, before int64, limit int) ([]*Change, error) {
	if err := checkRef(kind, objectID); err != nil {
		return nil, fmt.Errorf("delta: changes: %w", err)
	}
	if before < 0 {
		return nil, fmt.Errorf("delta: changes: %w", inputError("before", before, "must be the ID of a Change, or 0 for the latest"))
	}
	if err := setLimit("limit", &limit, defaultHistory, maxHistory); err != nil {
		return nil, fmt.Errorf("delta: changes: %w", err)
	}
	rows, err := db.New().ResourceChanges(ctx, c.pool, db.ResourceChangesParams{Kind: kind, ObjectID: objectID, BeforeID: before, Most: int32(limit)}) //nolint:gosec // it has a bound
	if err != nil {
		return nil, fmt.Errorf("delta: changes of %s/%s: %w", kind, objectID, schemaError(err))
	}
	all := make([]*Change, len(rows))
	for i, r := range rows {
		all[i] = changeOfRow(r)
	}
	return all, nil
}

// LatestChanges returns the latest entries of the log of changes, of all kinds, the latest first. It has what [Client.Changes] yields by now, so that reading goes on
// without a gap at the Position of the first. The limit is 10,000 at most; 0 means 100.
func (c *Client) LatestChanges(ctx context.Context, limit int) ([]*Change, error) {
	if err := setLimit("limit", &limit, defaultHistory, maxHistory); err != nil {
		return nil, fmt.Errorf("delta: changes: %w", err)
	}
	rows, err := db.New().LatestChanges(ctx, db.Planned(c.pool, limit), int32(limit)) //nolint:gosec // it has a bound
	if err != nil {
		return nil, fmt.Errorf("delta: changes: %w", schemaError(err))
	}
	all := make([]*Change, len(rows))
	for i, r := range rows {
		all[i] = changeOfRow(db.ResourceChangesRow(r))
	}
	return all, nil
}

// changeOfRow is an entry that was read from its end.
func changeOfRow(r db.ResourceChangesRow) *Change {
	return changeOf(&changeRow{
		ChangeEpoch: r.ChangeEpoch, OrderXid: r.OrderXid, ID: r.ID, At: r.At, Change: r.Change, Kind: r.Kind, ObjectID: r.ObjectID, Namespace: r.Namespace,
		ResourceID: r.ResourceID, Generation: r.Generation, SyncCount: r.SyncCount, Before: r.Before, After: r.After, Error: r.Error, Carrier: r.Carrier,
	})
}
