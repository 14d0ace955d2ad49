package db_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// What sets rows right, many at once, waits for an inform that has some of them, and is not its end.
func TestSetsOfMaintenanceAndInformsWaitForEachOther(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, maintain := range map[string]func(context.Context, db.DBTX, []int64) error{
		"RetryResources": func(ctx context.Context, conn db.DBTX, ids []int64) error {
			_, err := db.New().RetryResources(ctx, conn, db.RetryResourcesParams{Ids: ids, States: []string{"failed"}})
			return err
		},
		"SyncResources": func(ctx context.Context, conn db.DBTX, ids []int64) error {
			_, err := db.New().SyncResources(ctx, conn, ids)
			return err
		},
		"DeleteResources": func(ctx context.Context, conn db.DBTX, ids []int64) error {
			_, err := db.New().DeleteResources(ctx, conn, db.DeleteResourcesParams{Ids: ids, States: []string{"failed"}})
			return err
		},
		"DeleteMissing": func(ctx context.Context, conn db.DBTX, _ []int64) error {
			_, err := db.New().DeleteMissing(ctx, conn, db.DeleteMissingParams{
				Kind: "thing", Pass: "00000000-0000-0000-0000-000000000000", Began: farAhead, ToObjectID: "z",
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := deltatest.New(t)
			for i := range 20 { // they lie in the table in the opposite order
				informSet(t, env.Pool, object(fmt.Sprintf("%02d", 20-i), ""), plain)
			}
			var ids []int64
			err := env.Pool.QueryRow(t.Context(), `WITH failed AS (UPDATE delta_resource SET state = 'failed' RETURNING id, object_id)
				SELECT array_agg(id ORDER BY object_id DESC) FROM failed`).Scan(&ids)
			require.NoError(t, err)
			tx, err := env.Pool.Begin(t.Context())
			require.NoError(t, err)
			defer tx.Rollback(context.Background()) //nolint:errcheck // after a commit it does nothing
			informSet(t, tx, object("01", "changed"), plain)
			maintained := make(chan error, 1)
			conn, err := env.Pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			go func() { maintained <- maintain(t.Context(), conn, ids) }()
			require.Eventually(t, func() bool {
				var waits bool
				err := env.Pool.QueryRow(t.Context(), "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", conn.Conn().PgConn().PID()).Scan(&waits)
				return err == nil && waits
			}, time.Minute, 10*time.Millisecond)
			for i := range 20 {
				_, err := db.New().InformResource(t.Context(), tx, informParam(fmt.Sprintf("%02d", i+1)))
				require.NoError(t, err)
			}
			require.NoError(t, tx.Commit(t.Context()))
			require.NoError(t, <-maintained)
		})
	}
}

func informParam(id string) db.InformResourceParams {
	o := object(id, "changed again")
	return db.InformResourceParams{Kind: o.Kind, ObjectID: id, Object: o.EncodedObject, Hash: o.Hash, Priority: 3, DefaultMaxAttempts: 7}
}

// While all rows are made due again, dispatchers already lease some of them: those stay leased.
func TestWhatTemporalHasLostIsForgottenOnce(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	for i := range 5 {
		informSet(t, env.Pool, object(fmt.Sprint(i), ""), plain)
	}
	lease := func() {
		_, err := env.Pool.Exec(t.Context(), "UPDATE delta_resource SET dispatch_at = now() + interval '1 hour' WHERE dispatch_at <= now()")
		require.NoError(t, err)
	}
	lease()
	var forgotten []int
	for after := int64(0); len(forgotten) <= 5; {
		page, err := db.New().ForgetDispatched(t.Context(), env.Pool, db.ForgetDispatchedParams{AfterID: after, Batch: 2})
		require.NoError(t, err)
		for _, row := range page {
			after = max(after, row.ID)
			require.Equal(t, "thing", row.Kind)
		}
		if forgotten = append(forgotten, len(page)); len(page) == 0 {
			break
		}
		lease()
	}
	require.Equal(t, []int{2, 2, 1, 0}, forgotten)
}
