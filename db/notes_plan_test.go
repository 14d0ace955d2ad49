package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// What passes note beside resources is read as they are: the part that a statement is about, and neither what others have noted nor what it has looked at before.
func TestStatementsOfPassesReadWhatTheyAreAboutAndNotTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	const many, few = 20_000, 50
	q := db.New()
	mine, running := uuid.NewString(), uuid.NewString()
	fill := []string{
		fmt.Sprintf(`INSERT INTO delta_stale (kind, object_id, pass, seen_at) SELECT k, lpad(i::text, 6, '0'), gen_random_uuid(), now()
			FROM unnest('{thing,other}'::text[]) k, generate_series(1, %d) i`, many),
		fmt.Sprintf(`INSERT INTO delta_listing (pass, object_id) SELECT p::uuid, lpad(i::text, 6, '0') FROM unnest('{%s,%s}'::text[]) p, generate_series(1, %d) i`, mine, running, many),
		fmt.Sprintf(`INSERT INTO delta_inform (kind, shard, trigger, workflow_id, run_id, attempt) SELECT k, 's' || i %% 400, 'schedule', '', 'run ' || i, 1
			FROM unnest('{thing,other}'::text[]) k, generate_series(1, %d) i`, many),
		`INSERT INTO delta_shard (kind, shard) SELECT 'thing', 's' || i FROM generate_series(0, 399) i`,
	}
	tables := []string{"delta_stale", "delta_listing", "delta_inform"}
	ids := make([]string, few)
	for i := range ids {
		ids[i] = fmt.Sprintf("%06d", 7*i+1)
	}
	// Each statement, and how many rows of those tables it may read.
	statements := map[string]struct {
		do   func(ctx context.Context, conn db.DBTX) error
		most int
	}{
		"ForgetStale": {func(ctx context.Context, conn db.DBTX) error {
			return q.ForgetStale(ctx, conn, db.ForgetStaleParams{Kind: "thing", ObjectIds: ids})
		}, 2 * few},
		"SweepStale": {func(ctx context.Context, conn db.DBTX) error {
			if _, err := conn.Exec(ctx, "UPDATE delta_stale SET seen_at = now() - interval '1 year' WHERE object_id = ANY ($1)", ids); err != nil {
				return err
			}
			n, err := q.SweepStale(ctx, conn, time.Hour)
			if n != 2*few {
				return fmt.Errorf("%d are forgotten: %w", n, err)
			}
			return err
		}, 4 * 2 * few},
		"ForgetListing": {func(ctx context.Context, conn db.DBTX) error {
			last, err := q.ForgetListing(ctx, db.Planned(conn, 1000), db.ForgetListingParams{Pass: mine, AfterObjectID: "010000", Page: few})
			if last != fmt.Sprintf("%06d", 10_000+few) {
				return fmt.Errorf("the page ends with %q: %w", last, err)
			}
			return err
		}, 3 * few},
		"AbandonedListings": {func(ctx context.Context, conn db.DBTX) error {
			passes, err := q.AbandonedListings(ctx, conn, time.Hour)
			if len(passes) > 0 {
				return fmt.Errorf("%d are abandoned: %w", len(passes), err)
			}
			return err
		}, 10},
		"BeginInform": {func(ctx context.Context, conn db.DBTX) error {
			_, err := q.BeginInform(ctx, conn, db.BeginInformParams{Kind: "thing", Shard: "s7", Trigger: "schedule", RunID: "mine", Attempt: 1, Kept: 99})
			return err
		}, 3 * many / 400},
		"ForgetLeft": {func(ctx context.Context, conn db.DBTX) error {
			_, err := q.ForgetLeft(ctx, conn, db.ForgetLeftParams{Kind: "thing", Quiet: time.Hour, Began: time.Now()})
			return err
		}, 2 * 400},
	}
	for belief, analyze := range map[string]string{"analyzed": "ANALYZE delta_stale, delta_listing, delta_inform, delta_shard", "never analyzed": "SELECT"} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(belief+", "+mode, func(t *testing.T) {
				t.Parallel()
				env := deltatest.New(t)
				for _, table := range tables {
					_, err := env.Pool.Exec(t.Context(), "ALTER TABLE "+table+" SET (autovacuum_enabled = FALSE)")
					require.NoError(t, err)
				}
				for _, sql := range append(fill, analyze) {
					_, err := env.Pool.Exec(t.Context(), sql)
					require.NoError(t, err)
				}
				for name, s := range statements {
					t.Run(name, func(t *testing.T) {
						tx, err := env.Pool.Begin(t.Context())
						require.NoError(t, err)
						defer tx.Rollback(context.Background()) //nolint:errcheck // it is to be rolled back
						_, err = tx.Exec(t.Context(), "SET LOCAL plan_cache_mode = "+mode)
						require.NoError(t, err)
						counted := &countedReads{Tx: tx, of: tables}
						require.NoError(t, s.do(t.Context(), counted))
						require.NoError(t, counted.err)
						require.LessOrEqual(t, counted.read.others, s.most, "%s reads more rows than it is about", strings.TrimPrefix(t.Name(), "Test"))
					})
				}
			})
		}
	}
}
