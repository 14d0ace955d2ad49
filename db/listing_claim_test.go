package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A transaction that begins after a statement did, and is waited for by it, has an id that the statement's snapshot takes for one of the future, as those of
// restored rows are. Its row is not taken for one of them.
func TestARestoredRowThatIsWrittenWhileItIsWaitedForIsOutOfReach(t *testing.T) {
	t.Parallel()
	for name, ofSource := range map[string]bool{"a listing of an informer": false, "a listing of a source": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireRestoredInReach(t, ofSource)
		})
	}
}

func requireRestoredInReach(t *testing.T, ofSource bool) {
	t.Helper()
	env := deltatest.New(t)
	q := db.New()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, id := range []string{"here", "restored", "written"} {
		informSet(t, env.Pool, object(id, ""), plain)
	}
	_, err := env.Pool.Exec(ctx, `UPDATE delta_resource SET state = 'synced',
		written_by = CASE WHEN object_id = 'here' THEN written_by ELSE '1000000000000' END,
		informed_by = CASE WHEN object_id = 'here' THEN informed_by ELSE '1000000000000' END`)
	require.NoError(t, err)
	if ofSource { // it was synced here since, which does not say that the source has it
		_, err = env.Pool.Exec(ctx, `UPDATE delta_resource SET written_by = pg_current_xact_id() WHERE object_id = 'restored'`)
		require.NoError(t, err)
	}
	began, err := q.Snapshot(ctx, env.Pool)
	require.NoError(t, err)
	page := db.CountMissingParams{Kind: "thing", Pass: uuid.NewString(), Began: began, ToObjectID: "z", OfSource: ofSource}
	counted, err := q.CountMissing(ctx, env.Pool, page)
	require.NoError(t, err)
	require.Equal(t, db.CountMissingRow{Total: 3, Missing: 3, Restored: 2}, counted)

	writer, err := env.Pool.Begin(ctx)
	require.NoError(t, err)
	defer writer.Rollback(context.Background()) //nolint:errcheck // it is committed before
	_, err = writer.Exec(ctx, "UPDATE delta_resource SET written_by = pg_current_xact_id(), informed_by = pg_current_xact_id() WHERE object_id = 'written'")
	require.NoError(t, err)

	listing, err := env.Pool.Acquire(ctx)
	require.NoError(t, err)
	defer listing.Release()
	pid := int32(listing.Conn().PgConn().PID())
	type answer struct {
		adopted int64
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		n, err := q.AdoptRestored(ctx, listing, db.AdoptRestoredParams{Kind: "thing", ToObjectID: "z"})
		answered <- answer{n, err}
	}()
	for waits := false; !waits; time.Sleep(10 * time.Millisecond) {
		select {
		case a := <-answered:
			require.Fail(t, "it did not wait for the row", "%+v", a)
		default:
		}
		require.NoError(t, env.Pool.QueryRow(ctx, "SELECT cardinality(pg_blocking_pids($1)) > 0", pid).Scan(&waits))
	}
	require.NoError(t, writer.Commit(ctx))
	require.Equal(t, answer{adopted: 1}, <-answered)

	rows, err := db.ResourcesOf(q.DeleteMissing(ctx, env.Pool, db.DeleteMissingParams{
		Kind: page.Kind, Pass: page.Pass, Began: began, ToObjectID: page.ToObjectID, DefaultRetention: time.Hour, OfSource: ofSource,
	}))
	require.NoError(t, err)
	var deleted []string
	for _, r := range rows {
		deleted = append(deleted, r.ObjectID)
	}
	require.ElementsMatch(t, []string{"here", "restored"}, deleted)
}

// A claim is the one write of a sync that is a HOT update: it changes no column that an index names, also in kinds with shards, and in that of what is in
// trouble because it has failed before.
func TestAClaimWritesNoIndex(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	var ids []int64
	for _, id := range []string{"a", "b", "c"} {
		o := object(id, "")
		o.Shard, o.LimitKey = "eu", "key"
		ids = append(ids, informSet(t, env.Pool, o, plain).Resource.ID)
	}
	_, err := env.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'failed', attempt = 1, due_at = now() WHERE object_id = 'c'")
	require.NoError(t, err)
	tx, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
	// The connection may not have reported what it did before.
	counted := func() (updated, hot int) {
		require.NoError(t, tx.QueryRow(t.Context(),
			"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relid = 'delta_resource'::regclass").Scan(&updated, &hot))
		return updated, hot
	}
	updatedBefore, hotBefore := counted()
	claimed, err := db.New().ClaimResources(t.Context(), tx, claimParams(uuid.NewString(), "", ids))
	require.NoError(t, err)
	require.Len(t, claimed, len(ids))
	require.Equal(t, deltatype.ResourceStatePending, claimed[0].Resource.State)
	updated, hot := counted()
	require.Equal(t, len(ids), updated-updatedBefore)
	require.Equal(t, len(ids), hot-hotBefore)
}
