package activities_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// setClock has the database's clock differ from this process's: its schema has functions of its own, which are found first.
func (h *harness) setClock(ahead time.Duration) {
	h.t.Helper()
	config := h.env.Pool.Config()
	path := config.ConnConfig.RuntimeParams["search_path"]
	require.NotEmpty(h.t, path)
	config.ConnConfig.RuntimeParams["search_path"] = path + ", pg_catalog"
	pool, err := pgxpool.NewWithConfig(h.t.Context(), config)
	require.NoError(h.t, err)
	h.t.Cleanup(pool.Close)
	h.Pool = pool
	h.moveClock(ahead)
}

// moveClock has that clock differ by another time.
func (h *harness) moveClock(ahead time.Duration) {
	h.t.Helper()
	for _, clock := range []string{"now", "clock_timestamp"} {
		_, err := h.Pool.Exec(h.t.Context(), "CREATE OR REPLACE FUNCTION "+clock+"() RETURNS timestamptz LANGUAGE sql STABLE AS $$SELECT pg_catalog."+clock+"() + interval '"+
			ahead.String()+"'$$")
		require.NoError(h.t, err)
	}
}

// readCursorRow reads the row with the cursor of the whole kind.
func (h *harness) readCursorRow() db.Shard {
	h.t.Helper()
	row, err := db.New().GetShard(context.Background(), h.Pool, db.GetShardParams{Kind: kind})
	require.NoError(h.t, err)
	return row
}

// A worker with a clock 26 h ahead of the database's must not hide objects that are created within these hours.
func TestTheCursorIsByTheClockOfTheDatabase(t *testing.T) {
	t.Parallel()
	for name, listed := range map[string]activities.Listed{
		"without times of creation":        item(object("a", "1")),
		"created in the database's future": createdAt(object("a", "1"), time.Now().Add(time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInformer(t, lists(listed))
			h.setClock(-26 * time.Hour)
			began := h.now()
			_, err := h.pass()
			require.NoError(t, err)
			cursor, ended := h.readCursorRow().LastInformTime, h.now()
			require.False(t, cursor.Before(began), "%s, which is before the pass began at %s", cursor, began)
			require.False(t, cursor.After(ended), "%s, which is after now, %s", cursor, ended)
		})
	}
}

// A cursor that is ahead of the database's clock, as after a restore, hides nothing that is created from now on.
func TestACursorThatIsAheadComesBack(t *testing.T) {
	t.Parallel()
	var after *time.Time
	h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		after = o.After
		return lists()(ctx, o)
	})
	h.Listing.Overlap = time.Minute
	_, err := h.Pool.Exec(t.Context(), "INSERT INTO delta_shard (kind, shard, last_inform_time) VALUES ($1, '', now() + interval '26 h')", kind)
	require.NoError(t, err)
	_, err = h.pass()
	require.NoError(t, err)
	now := h.now()
	require.True(t, after.Before(now.Add(-h.Listing.Overlap)), "%s", after)
	require.False(t, h.readCursorRow().LastInformTime.After(now))
}

// The clock was set back, so that the cursor is ahead of it, and the pass goes on for longer than the overlap: it ends when the cursor is in the past. What was
// created meanwhile is listed by the next pass, which goes on from the pass's beginning, or from before.
func TestALongPassMissesNothingWhileTheCursorIsAhead(t *testing.T) {
	t.Parallel()
	const overlap = time.Minute
	for name, ahead := range map[string]time.Duration{"by less than the overlap": overlap / 2, "by more": time.Hour} {
		for _, isDated := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, dated: %t", name, isDated), func(t *testing.T) {
				t.Parallel()
				created := map[string]time.Time{}
				var meanwhile func()
				h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
					var found []activities.Listed
					for id, at := range created {
						one := item(object(id, "1"))
						if isDated {
							one.Params.CreatedAt = &at
						}
						if o.After == nil || at.After(*o.After) {
							found = append(found, one)
						}
					}
					if meanwhile != nil {
						meanwhile()
					}
					return lists(found...)(ctx, o)
				})
				h.Listing.Overlap = overlap
				h.setClock(0)
				_, err := h.Pool.Exec(t.Context(), "INSERT INTO delta_shard (kind, shard, last_inform_time) VALUES ($1, '', now() + $2::interval)", kind, ahead)
				require.NoError(t, err)
				created["before"] = h.now()
				meanwhile = func() {
					created["meanwhile"] = h.now().Add(time.Second)
					h.moveClock(2 * ahead)
				}
				_, err = h.pass()
				require.NoError(t, err)
				require.NotNil(t, h.row(h.ref("before")))
				require.Nil(t, h.row(h.ref("meanwhile")))

				meanwhile = nil
				_, err = h.pass()
				require.NoError(t, err)
				require.NotNil(t, h.row(h.ref("meanwhile")), "it was missed: the cursor is %s", h.cursor())
			})
		}
	}
}

// Clocks of the database and of upstream jump by hours, both ways, away from that of the worker and back, and a pass follows each jump: no object is
// missed, in no shard. Upstream filters by the time of creation, as it does where a cursor matters.
func TestTheCursorMissesNothingWhenClocksJumpByHours(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	shards := []string{"eu", "us", "asia pacific"}
	outside := map[string][]deltatype.ObjectInformParams{}
	h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		var found []activities.Listed
		for _, one := range outside[o.Shard] {
			if o.After == nil || one.CreatedAt.After(*o.After) {
				found = append(found, item(one))
			}
		}
		return lists(found...)(ctx, o)
	})
	h.handler.shards = func() ([]string, error) { return shards, nil }
	h.Listing.Overlap = time.Second
	pass := func(round int, shard string) {
		_, err := h.pass(func(in *activities.InformInput) { in.Options.Shard, in.Named = shard, true })
		require.NoError(t, err)
		for _, one := range outside[shard] {
			require.NotNil(t, h.row(h.ref(one.ResourceID)), "round %d: %s of %s was missed", round, one.ResourceID, shard)
		}
	}
	for round := range 20 {
		h.setClock(time.Duration(random.Int64N(int64(48*time.Hour))) - 24*time.Hour)
		for _, shard := range shards {
			if random.IntN(3) > 0 {
				one, at := inShard(shard, fmt.Sprintf("%s/%d", shard, round)), h.now()
				one.CreatedAt = &at
				outside[shard] = append(outside[shard], one)
			}
		}
		time.Sleep(time.Duration(random.Int64N(int64(1200 * time.Millisecond))))
		for _, shard := range shards {
			pass(round, shard)
		}
	}
}

// If two passes run side by side, the position of the one that began later counts, even if it ends first.
func TestThePositionOfThePassThatBeganLastCounts(t *testing.T) {
	t.Parallel()
	at := func(p string) listing { return lists(activities.Listed{Cursor: &p}) }
	var h *harness
	h = newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		h.handler.inform = at("later")
		_, err := h.pass()
		require.NoError(t, err)
		return at("earlier")(ctx, o)
	})
	_, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, "later", h.readCursorRow().InformCursor)

	h.handler.inform = lists()
	_, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, "later", h.readCursorRow().InformCursor, "a pass that gives none keeps it")

	h.handler.inform = at("")
	_, err = h.pass()
	require.NoError(t, err)
	require.Empty(t, h.readCursorRow().InformCursor, "an empty one removes it")
}
