package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// pauseOfReads is the time between two looks at what may be read.
const pauseOfReads = 20 * time.Millisecond

// change is an entry of the log, with the contents of the objects.
type change struct {
	Change                string
	Generation, SyncCount int64
	Before, After, Error  string
}

// readChanges reads the entries of an object, the oldest first.
func (h *harness) readChanges(objectID string) []change {
	h.t.Helper()
	rows, err := h.Pool.Query(context.Background(), `SELECT change, generation, sync_count, coalesce(before ->> 'content', ''), coalesce(after ->> 'content', ''),
		coalesce(error, '') FROM delta_change WHERE kind = $1 AND object_id = $2 ORDER BY id`, kind, objectID)
	require.NoError(h.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[change])
	require.NoError(h.t, err)
	return all
}

// newLogged returns a harness with a kind that logs its changes, with the row that a starting client writes.
func newLogged(t *testing.T, work func(context.Context, *deltatype.ResourceRow) activities.Outcome) *harness {
	t.Helper()
	h := newHarness(t, work)
	h.setLog(true)
	return h
}

func (h *harness) setLog(logs bool) {
	h.t.Helper()
	h.LogChanges = logs
	_, err := db.New().UpsertController(context.Background(), h.Pool, db.UpsertControllerParams{
		Name: kind, Finalizes: h.handler.finalize != nil, LogsChanges: logs,
	})
	require.NoError(h.t, err)
}

func TestEachSettledStepIsLogged(t *testing.T) {
	t.Parallel()
	h := newLogged(t, does(synced))
	h.handler.finalize = func(context.Context, *deltatype.ResourceRow) activities.Outcome { return finalized }
	h.setLog(true)
	ref := h.inform(object("a", "1"))
	h.attempt(ref)
	h.inform(object("a", "2"))
	h.attempt(ref)
	h.handler.work = does(failed)
	h.inform(object("a", "3"))
	h.attempt(ref)
	require.Len(t, h.readChanges("a"), 2, "a failure that is tried again has not settled")
	h.handler.work = does(hopeless)
	h.set(ref, "due_at = now()")
	h.attempt(ref)
	h.handler.work = does(synced)
	h.inform(object("a", "4"))
	h.attempt(ref)
	h.delete(ref)
	h.attempt(ref) // Finalize
	h.inform(object("a", "5"))
	h.inform(object("a", "6"))
	h.attempt(ref)
	h.handler.work = does(deleted)
	h.inform(object("a", "7"))
	h.attempt(ref)
	_, err := activities.RunCommand(t.Context(), h.Pool, kind, "a", activities.CommandRevive, h.Retention)
	require.NoError(t, err)
	require.Equal(t, []change{
		{"created", 1, 1, "", "1", ""},
		{"updated", 2, 2, "1", "2", ""},
		{"failed", 3, 2, "2", "3", hopeless.Error},
		{"updated", 4, 3, "2", "4", ""},
		{"deleted", 5, 3, "4", "", ""},
		{"finalized", 5, 3, "4", "", ""},
		{"revived", 6, 3, "", "5", ""},
		{"updated", 7, 4, "", "6", ""},
		{"deleted", 8, 4, "6", "", "gone"},
		{"revived", 9, 4, "", "7", ""},
	}, h.readChanges("a"))
}

func TestAListingThatLeavesOutIsLogged(t *testing.T) {
	t.Parallel()
	h := newLogged(t, does(synced))
	ref := h.inform(object("a", "1"))
	h.attempt(ref)
	h.Listing = activities.Listing{Complete: true, MostDeleted: 1}
	h.handler.inform = lists()
	_, err := h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
	require.NoError(t, err)
	h.handler.inform = lists(item(object("a", "2")), item(object("b", "1"))) // it is back, in a set
	_, err = h.pass(func(in *activities.InformInput) { in.Pass = uuid.NewString() })
	require.NoError(t, err)
	require.Equal(t, []change{
		{"created", 1, 1, "", "1", ""}, {"deleted", 2, 1, "1", "", ""}, {"revived", 3, 1, "", "2", ""},
	}, h.readChanges("a"))
}

// The log has the object that Work was given, also if the row went on meanwhile.
func TestTheObjectThatWasWorkedIsLogged(t *testing.T) {
	t.Parallel()
	h := newLogged(t, nil)
	ref := h.inform(object("a", "1"))
	h.handler.work = func(context.Context, *deltatype.ResourceRow) activities.Outcome {
		h.inform(object("a", "2"))
		return synced
	}
	h.attempt(ref)
	h.handler.work = does(synced)
	h.attempt(ref)
	require.Equal(t, []change{{"created", 1, 1, "", "1", ""}, {"updated", 2, 2, "1", "2", ""}}, h.readChanges("a"))
}

func TestAKindWithoutALogAppendsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t, does(synced))
	h.setLog(false)
	ref := h.inform(object("a", "1"))
	h.attempt(ref)
	h.delete(ref)
	h.inform(object("a", "2"))
	h.attempt(ref)
	require.Empty(t, h.readChanges("a"))
	var kept bool
	err := h.Pool.QueryRow(t.Context(), `SELECT change_xid IS NOT NULL OR synced_object IS NOT NULL OR revived_generation IS NOT NULL
		FROM delta_resource WHERE object_id = 'a'`).Scan(&kept)
	require.NoError(t, err)
	require.False(t, kept, "its row keeps nothing for a log")

	// What was synced while nothing was logged is not taken for what comes before the next entry.
	h.setLog(true)
	h.inform(object("a", "3"))
	h.attempt(ref)
	h.setLog(false)
	h.inform(object("a", "4"))
	h.attempt(ref)
	h.setLog(true)
	h.inform(object("a", "5"))
	h.attempt(ref)
	require.Equal(t, []change{{"updated", 4, 3, "", "3", ""}, {"updated", 6, 5, "", "5", ""}}, h.readChanges("a"))
}

// An entry is written with the outcome, or not at all, and once, however often the statement is repeated.
func TestALogAndItsOutcomeAreOne(t *testing.T) {
	t.Parallel()
	h := newLogged(t, nil)
	ref := h.inform(object("a", "1"))
	claim := h.claim(ref)
	params := outcomeOf(h.row(ref), claim, "synced")
	params.Logs, params.Objects, params.Carriers = true, []string{`{"content": "1"}`}, []string{"traceparent: 00-1"}
	tx, err := h.env.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = db.New().WriteOutcomes(t.Context(), tx, params)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Empty(t, h.readChanges("a"))
	for range 2 {
		_, err = db.New().WriteOutcomes(t.Context(), h.env.Pool, params)
		require.NoError(t, err)
	}
	require.Equal(t, []change{{"created", 1, 1, "", "1", ""}}, h.readChanges("a"))
	var carrier string
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT carrier FROM delta_change").Scan(&carrier))
	require.Equal(t, "traceparent: 00-1", carrier)
}

// A transaction may have had its id for long before it writes the latest entry of a resource. It still comes last.
func TestEntriesOfAResourceComeInTheOrderOfItsLock(t *testing.T) {
	t.Parallel()
	h := newLogged(t, does(synced))
	ref := h.inform(object("a", "1"))
	early, err := h.env.Pool.Begin(t.Context())
	require.NoError(t, err)
	var own uint64
	require.NoError(t, early.QueryRow(t.Context(), "SELECT pg_current_xact_id()").Scan(&own))
	h.attempt(ref)
	_, err = activities.RunCommand(t.Context(), early, kind, "a", activities.CommandDelete, h.Retention)
	require.NoError(t, err)

	read := func() (read []string) {
		t.Helper()
		rows, err := db.New().ReadChanges(t.Context(), h.env.Pool, db.ReadChangesParams{Kinds: []string{}, Members: 1, Most: 100})
		require.NoError(t, err)
		for _, row := range rows {
			if row.ID > 0 {
				read = append(read, row.Change)
			}
		}
		return read
	}
	require.Empty(t, read(), "what was written later may not be read while what comes before it may still be committed")
	require.NoError(t, early.Commit(t.Context()))
	// Other tests of this server have transactions that end.
	require.Eventually(t, func() bool { return len(read()) == 2 }, patience, pauseOfReads)
	require.Equal(t, []string{"created", "deleted"}, read())
	var first, second uint64
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT min(order_xid), max(order_xid) FROM delta_change").Scan(&first, &second))
	require.Equal(t, first, second, "the second is not before the first")
	require.Less(t, own, first, "though its transaction is")
}
