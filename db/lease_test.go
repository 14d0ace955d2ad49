package db_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// lender leases as many batches as it has names for.
type lender struct {
	names         []string
	size, largest int
	hash          bool
	started       []map[string][]*deltatype.ResourceRow
}

func (l *lender) Lease(string, int) *db.Lease {
	return &db.Lease{
		Batches: l.names, Size: l.size, Largest: l.largest, For: time.Minute, HashIDs: l.hash,
		Start: func(members map[string][]*deltatype.ResourceRow) { l.started = append(l.started, members) },
	}
}

func things(n int, content string) (all []deltatype.ObjectInformParams) {
	for i := range n {
		all = append(all, object(fmt.Sprintf("%03d", i), content))
	}
	return all
}

func TestASetIsLeasedAsItIsWrittenAndWhatIsLeftWaitsForADispatcher(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	out := &lender{names: []string{"batch/1", "batch/2"}, size: 3, largest: 1 << 10}
	options := plain
	options.Outbox = out
	results, err := db.Inform(t.Context(), env.Pool, things(8, "1"), options)
	require.NoError(t, err)
	require.Len(t, out.started, 1)
	require.Len(t, out.started[0]["batch/1"], 3)
	require.Len(t, out.started[0]["batch/2"], 3)
	for i, r := range results {
		row := read(t, env.Pool, r.Resource.ObjectID)
		want := []string{"batch/1", "batch/2", ""}[i/3]
		require.Equal(t, want, row.WorkflowID, row.ObjectID)
		require.Equal(t, want != "", db.IsLeased(r.Resource))
		if want == "" {
			require.Equal(t, *row.DueAt, *row.DispatchAt, "it is due now")
		} else {
			require.Equal(t, time.Minute, row.DispatchAt.Sub(*row.DueAt), "nobody takes it while the lease lasts")
		}
		require.Empty(t, row.HashedID)
	}

	// What did not change is nobody's to start; what is too large, waits.
	out.started, out.largest, out.hash = nil, 60, true
	again := things(8, "1")
	again[0], again[1] = object("000", "2"), object("001", fmt.Sprintf("%060d", 2))
	_, err = db.Inform(t.Context(), env.Pool, again, options)
	require.NoError(t, err)
	require.Len(t, out.started, 1)
	require.Len(t, out.started[0]["batch/1"], 1)
	require.Equal(t, "000", out.started[0]["batch/1"][0].ObjectID)
	require.NotEmpty(t, read(t, env.Pool, "000").HashedID)
	require.False(t, db.IsLeased(read(t, env.Pool, "001")))
}

func TestARowThatIsNotForABatchIsNotLeasedToOne(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, change := range map[string]string{
		"its Work may run":              "UPDATE delta_resource SET claimed_until = now() + interval '1 hour', workflow_id = 'own'",
		"its claim was never closed":    "UPDATE delta_resource SET claimed_until = now() - interval '1 minute', workflow_id = 'own'",
		"its kind is paused":            "UPDATE delta_controller SET paused = TRUE",
		"a claim that is closed is not": "UPDATE delta_resource SET claimed_until = NULL, claim = gen_random_uuid(), workflow_id = 'own'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := deltatest.New(t)
			_, err := db.Inform(t.Context(), env.Pool, things(4, "1"), plain)
			require.NoError(t, err)
			_, err = env.Pool.Exec(t.Context(), "INSERT INTO delta_controller (name, inform_interval) VALUES ($1, '1 hour')", things(1, "")[0].Kind)
			require.NoError(t, err)
			tag, err := env.Pool.Exec(t.Context(), change)
			require.NoError(t, err)
			require.NotZero(t, tag.RowsAffected())

			out := &lender{names: []string{"batch"}, size: 10, largest: 1 << 10}
			options := plain
			options.Outbox = out
			_, err = db.Inform(t.Context(), env.Pool, things(5, "2"), options) // four that changed and a new one
			require.NoError(t, err)
			require.Len(t, out.started, 1)
			row := read(t, env.Pool, "000")
			switch name {
			case "a claim that is closed is not":
				require.Len(t, out.started[0]["batch"], 5)
				require.Equal(t, "batch", row.WorkflowID)
			case "its kind is paused":
				require.Empty(t, out.started[0])
				require.Empty(t, row.WorkflowID)
				require.Equal(t, *row.DueAt, *row.DispatchAt)
			default:
				require.Len(t, out.started[0]["batch"], 1, "the new one")
				require.Equal(t, "own", row.WorkflowID)
				require.Equal(t, *row.DueAt, *row.DispatchAt)
			}
		})
	}
}

func TestALeaseIsGivenBackWhereTheSetIsNotWritten(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	out := &lender{names: []string{"batch"}, size: 10, largest: 1 << 10}
	options := plain
	options.Outbox = out
	broken := errors.New("broken")
	_, err := db.Inform(t.Context(), &faulty{DBTX: env.Pool, faults: []error{broken}}, things(4, "1"), options)
	require.ErrorIs(t, err, broken)
	require.Equal(t, []map[string][]*deltatype.ResourceRow{nil}, out.started)
}
