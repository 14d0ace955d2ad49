package activities_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// listPasses reads the history of passes, the latest first.
func (h *harness) listPasses() []db.DeltaInform {
	h.t.Helper()
	all, err := db.New().ListInforms(context.Background(), h.Pool, db.ListInformsParams{Kind: kind, Most: 5000})
	require.NoError(h.t, err)
	return all
}

func TestEachPassIsInTheHistory(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists(item(object("a", "1")), item(object("b", "1")), item(object("c", "1"))))
	h.handler.work = does(synced)
	h.Listing = activities.Listing{Complete: true, MostDeleted: 1}
	scheduled := func(in *activities.InformInput) {
		in.Trigger, in.Pass = activities.TriggerSchedule, uuid.NewString()
	}
	_, err := h.pass(scheduled)
	require.NoError(t, err)
	for _, id := range []string{"a", "b", "c"} {
		h.attempt(h.ref(id))
	}
	h.inform(revised("d", 5))
	h.handler.inform = lists(item(object("a", "1")), item(object("b", "2")), item(revised("d", 4)), item(object("new", "1")), badItem("bad"))
	_, err = h.pass(func(in *activities.InformInput) {
		in.Trigger, in.Pass, in.FullListing = activities.TriggerRequest, uuid.NewString(), true
	})
	require.NoError(t, err)
	h.handler.inform = lists(item(object("a", "1")), activities.Listed{Err: errors.New("503"), Fatal: true})
	_, err = h.pass()
	require.Error(t, err)
	h.handler.inform = lists()
	for _, id := range []string{"b", "new"} {
		h.attempt(h.ref(id))
	}
	_, err = h.pass(scheduled)
	require.NoError(t, err)

	all := h.listPasses()
	require.Len(t, all, 4)
	for i := range all {
		require.NotNil(t, all[i].EndedAt)
		require.WithinRange(t, *all[i].EndedAt, all[i].StartedAt, h.now())
		all[i] = db.DeltaInform{
			Trigger: all[i].Trigger, FullListing: all[i].FullListing, Listed: all[i].Listed, New: all[i].New, Changed: all[i].Changed,
			Unchanged: all[i].Unchanged, Stale: all[i].Stale, Refused: all[i].Refused,
			Unkept: all[i].Unkept, Deleted: all[i].Deleted, Withheld: all[i].Withheld, Error: all[i].Error,
		}
	}
	require.Equal(t, []db.DeltaInform{
		{Trigger: "schedule", Withheld: 3},
		{Trigger: "workflow", Listed: 1, Error: "informing kind thing (1 listed so far): 503"},
		{Trigger: "request", FullListing: true, Listed: 5, New: 1, Changed: 1, Unchanged: 1, Stale: 1, Refused: 1, Deleted: 1},
		{Trigger: "schedule", Listed: 3, New: 3},
	}, all)
}

func TestAPassThatIsCutOffIsInTheHistory(t *testing.T) {
	t.Parallel()
	var isListed atomic.Bool
	h := newInformer(t, func(context.Context, deltatype.InformOptions) <-chan activities.Listed {
		isListed.Store(true)
		return make(chan activities.Listed)
	})
	tries := 0
	for timeout := 50 * time.Millisecond; !isListed.Load(); timeout *= 2 { // on a slow machine it may pass before anything is listed
		require.Less(t, timeout, patience, "nothing is ever listed")
		h.handler.passTimeout = timeout
		_, err := h.pass()
		require.Error(t, err)
		tries++
	}
	all := h.listPasses()
	require.NotEmpty(t, all)
	require.LessOrEqual(t, len(all), tries)
	require.NotNil(t, all[0].EndedAt)
	require.Contains(t, all[0].Error, "timed out after "+h.handler.passTimeout.String())
}

// When the run is tried again, the pass of a dead worker is distinguished from one that goes on.
func TestTheHistoryNamesPassesWhoseWorkerWasLost(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists())
	begin := func(run string, attempt int32) (lost int32) {
		begun, err := db.New().BeginInform(t.Context(), h.Pool, db.BeginInformParams{Kind: kind, Trigger: "schedule", RunID: run, Attempt: attempt, Kept: 10})
		require.NoError(t, err)
		require.GreaterOrEqual(t, begun.LostAfter, time.Duration(0))
		return begun.LostAttempt
	}
	require.Zero(t, begin("one", 1))
	require.Zero(t, begin("another", 1))
	require.Nil(t, h.listPasses()[0].EndedAt)
	require.EqualValues(t, 1, begin("one", 2), "the try that was lost")
	all := h.listPasses()
	require.Nil(t, all[0].EndedAt)
	require.Nil(t, all[1].EndedAt, "a pass of another run goes on")
	require.NotNil(t, all[2].EndedAt)
	require.Equal(t, "its worker was lost", all[2].Error)
}

// The passes of two shards may be of one run: what begins says nothing of the other.
func TestAPassThatBeginsSaysNothingOfThoseOfOtherShards(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists())
	for _, shard := range []string{"a", "b"} {
		_, err := db.New().BeginInform(t.Context(), h.Pool, db.BeginInformParams{Kind: kind, Shard: shard, Trigger: "schedule", RunID: "one", Attempt: 1, Kept: 10})
		require.NoError(t, err)
	}
	all := h.listPasses()
	require.Len(t, all, 2)
	require.Nil(t, all[0].EndedAt)
	require.Nil(t, all[1].EndedAt, "the pass of shard a goes on")
}

func TestTheHistoryIsBounded(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists())
	_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_inform (kind, trigger, workflow_id, run_id, attempt)
		SELECT k, 'schedule', '', '', 1 FROM generate_series(1, 1500), unnest(ARRAY[$1, 'other']) k`, kind)
	require.NoError(t, err)
	_, err = h.pass()
	require.NoError(t, err)
	all := h.listPasses()
	require.Equal(t, 1000, len(all)) //nolint:testifylint // a thousand passes tell nothing
	require.Equal(t, "workflow", all[0].Trigger, "the latest are kept")
	var others int
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_inform WHERE kind = 'other'").Scan(&others))
	require.Equal(t, 1500, others)
}
