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

// ChangeType is the kind of an entry of the log of changes.
type ChangeType string

const (
	// ChangeCreated is the first sync of a resource.
	ChangeCreated ChangeType = "created"
	// ChangeUpdated is a later sync, even of the same object, as after an expiry.
	ChangeUpdated ChangeType = "updated"
	// ChangeFailed is a resource that has degraded. A degraded resource that is tried again slowly has such an entry after
	// each failed attempt.
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
	// Position is the place of the entry in the log: a reader that begins at it continues with the next entry.
	Position ChangePosition
	// ID is unique in the database. It rises with the entries of a resource.
	ID int64
	// Type is the kind of change.
	Type ChangeType
	// Kind, ObjectID and Namespace are those of the resource. ResourceID is the id of its row: an object that is informed
	// after its row was removed gets another.
	Kind, ObjectID, Namespace string
	ResourceID                int64
	// Generation is the generation that has settled, SyncCount how often the resource had been synced by then.
	Generation, SyncCount int64
	// Before is the object of the previous sync, as JSON: nil if there was none, none since a deletion, or none while the
	// log was on. After is the object that was synced, could not be synced, or is to be synced; nil after a deletion.
	// [Client.ResourceChanges] and [Client.LatestChanges] return objects that Config.ObjectCodec does not decode in their
	// stored form ([deltatype.IsEncoded]); [Client.Changes] and [Client.ConsumeChanges] return an error, and go no further.
	Before, After json.RawMessage
	// Error is why the sync failed, or the error with which Work deleted the resource; empty otherwise.
	Error string
	// TraceParent and TraceState are those of the inform that made the generation, as Telemetry has carried them; empty for
	// none.
	TraceParent, TraceState string
	// At is when the entry was written, which is before its transaction ended.
	At time.Time
}

// ChangePosition is a position in the log of changes, behind an entry. It can be stored as text; its format may change. The
// empty position is before the oldest entry that is kept.
type ChangePosition string

// ChangePositionError is returned for a position from which the log cannot be read without a gap. Match it with errors.As.
type ChangePositionError struct {
	// Position is the one that was given.
	Position ChangePosition
	// IsRewound is set if the log went back: the database was restored, or the position belongs to another one. Otherwise
	// entries after the position were removed: the reader was slower than [Config].MaxChangeRetentionPeriod, or than
	// ChangeRetentionPeriod if its position is not in the database.
	IsRewound bool
}

// Error has the reason, and what to do.
func (e *ChangePositionError) Error() string {
	why := "entries after it were removed (Config.ChangeRetentionPeriod, MaxChangeRetentionPeriod)"
	if e.IsRewound {
		why = "the database was restored, or it is of another database"
	}
	return fmt.Sprintf("the log of changes cannot be read on from position %q: %s. Take over what there is now, and begin at the oldest entry, which is the empty position",
		string(e.Position), why)
}

// logPosition is a decoded ChangePosition.
type logPosition struct {
	epoch int32
	xid   uint64
	id    int64
}

// isStart reports whether the position is before all entries, of any epoch.
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
		// pgx reads no xid8 above MaxInt64, although Postgres' has no sign.
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
	// removed is the position up to which entries had been removed when the reader began at the oldest entry: its first
	// page may begin after that.
	removed logPosition
}

// changePage is a page of the log.
type changePage struct {
	changes []*Change
	// end is behind the last entry of the page, including entries of other kinds and members. isEmpty is set if there is
	// none.
	end     logPosition
	isEmpty bool
}

// readPage reads the page behind a position. The statement is planned each time, because a plan that was made for a short
// log reads all of it for each page.
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
			change := changeOf(row)
			if err := r.client.decodeChange(ctx, change); err != nil {
				return page, err // to go on without the object would lose it
			}
			page.changes = append(page.changes, change)
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
		if carried, err := readCarrier(row.Carrier); err == nil { // Work reads it too, and reports the error
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

// ResourceChanges returns the entries of one object, the latest first, including those of removed rows, for as long as the
// log keeps them. It shows entries once they are committed, so it may be ahead of [Client.Changes]. before is the ID of the
// entry to go back from, 0 for the latest. The limit is 10,000 at most; 0 means 100.
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
		_ = c.decodeChange(ctx, all[i]) // it keeps the stored form, to be shown
	}
	return all, nil
}

// LatestChanges returns the latest entries of the log of changes, of all kinds, the latest first. It has the entries that
// [Client.Changes] yields by now, so reading can continue without a gap at the Position of the first. The limit is 10,000
// at most; 0 means 100.
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
		_ = c.decodeChange(ctx, all[i])
	}
	return all, nil
}

// changeOfRow converts a row that was read from the end of the log.
func changeOfRow(r db.ResourceChangesRow) *Change {
	return changeOf(&changeRow{
		ChangeEpoch: r.ChangeEpoch, OrderXid: r.OrderXid, ID: r.ID, At: r.At, Change: r.Change, Kind: r.Kind, ObjectID: r.ObjectID, Namespace: r.Namespace,
		ResourceID: r.ResourceID, Generation: r.Generation, SyncCount: r.SyncCount, Before: r.Before, After: r.After, Error: r.Error, Carrier: r.Carrier,
	})
}
