package activities_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// A deploy of a controller with shards, in which workers of both versions list.
func TestAListingWithoutShardsDeletesNothingOfShardsByItself(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"": append(shardIDs("a", 2), "old", "older")})
	shards := s.handler.shards
	whole := func() activities.InformProgress {
		s.t.Helper()
		defer s.syncAll()
		return s.completePass()
	}
	s.handler.shards = nil
	whole()
	require.Len(t, s.liveIDs(""), 4)

	s.handler.shards = shards
	s.upstream = map[string][]string{"a": shardIDs("a", 2), "b": shardIDs("b", 1)}
	require.Equal(t, activities.InformProgress{Listed: 2}, s.runPasses()["a"])
	require.Equal(t, shardIDs("a", 2), s.liveIDs("a"), "the column is written by the first listing of the shard")
	require.Equal(t, []string{"old", "older"}, s.liveIDs(""), "no shard's listing deletes what has none")

	s.handler.shards = nil
	s.upstream[""] = []string{"old"}
	require.EqualValues(t, 4, whole().Withheld, "all that it leaves out, since some of it is of shards")
	require.Len(t, s.liveIDs("a"), 2)
	require.Len(t, s.liveIDs(""), 2)
	require.Equal(t, map[string]int64{"": 4}, s.withheldCounts())

	s.handler.shards = shards
	delete(s.upstream, "")
	s.runPasses()
	require.Empty(t, s.withheldCounts(), "with shards, such a listing has no say")

	// For good without shards: what somebody has approved is deleted.
	s.handler.shards = nil
	s.upstream[""] = []string{"a/0", "a/1", "old", "older"} // their objects say no shard any more
	require.EqualValues(t, 1, whole().Withheld)
	require.Len(t, s.liveIDs(""), 4)
	s.decideWithheld(activities.Approved, "", 1)
	require.Equal(t, 1, whole().Deleted)
	require.Empty(t, s.liveIDs("b"))
}

func TestAPassOfAShardForgetsOnlyItsOwnRefusedObjects(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": nil, "b": nil})
	refused := func() (shards []string) {
		rows, err := db.New().ListRefused(t.Context(), s.Pool, db.ListRefusedParams{Kind: kind, Most: 10})
		require.NoError(t, err)
		for _, r := range rows {
			shards = append(shards, r.Shard+" "+r.ObjectID)
		}
		return shards
	}
	bad := map[string][]activities.Listed{"a": {{Params: object("x", "1"), Err: errors.New("no")}}}
	s.handler.inform = func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		return lists(bad[o.Shard]...)(ctx, o)
	}
	s.runPasses()
	require.Equal(t, []string{"a x"}, refused(), "b's complete listing comes after it")
	bad["b"] = []activities.Listed{item(inShard("b", "x"))}
	s.runPasses()
	require.Equal(t, []string{"a x"}, refused(), "that b's is taken does not make a's right")
	bad["a"] = nil
	s.runPasses()
	require.Empty(t, refused())
	require.Equal(t, []string{"x"}, s.liveIDs("b"))
}

// What a kind's listings refused before it had shards, or while it had, is forgotten when the others have listed everything and it runs no more.
func TestWhatOtherListingsOfAKindRefusedIsForgottenWhenTheyAreOver(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": {"a/1"}, "b": {"b/1"}})
	note := func(shard string) {
		_, err := s.Pool.Exec(t.Context(), "INSERT INTO delta_refused (kind, shard, object_id, rule) VALUES ($1, $2, 'x', 'no')", kind, shard)
		require.NoError(t, err)
		_, err = s.Pool.Exec(t.Context(), "INSERT INTO delta_withheld (kind, shard, missing, total, reason) VALUES ($1, $2, 5, 5, 'no') ON CONFLICT DO NOTHING", kind, shard)
		require.NoError(t, err)
	}
	quiet := func() {
		_, err := s.Pool.Exec(t.Context(), "UPDATE delta_inform SET started_at = now() - interval '2 days'")
		require.NoError(t, err)
	}
	left := func() (n int) {
		require.NoError(t, s.Pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM delta_refused) + (SELECT count(*) FROM delta_withheld)").Scan(&n))
		return n
	}
	shards := s.handler.shards
	s.handler.shards = nil
	s.upstream[""] = []string{"a/1"}
	s.completePass()
	s.syncAll()
	note("")
	s.handler.shards = shards
	delete(s.upstream, "")
	s.runPasses()
	s.planShards()
	require.Equal(t, 1, left(), "the listings without shards may go on; what they withheld has no effect")
	quiet()
	s.down["a"] = true
	_, err := s.Pool.Exec(t.Context(), "UPDATE delta_shard SET succeeded_at = NULL WHERE shard = 'a'")
	require.NoError(t, err)
	s.planShards()
	require.Equal(t, 1, left(), "a has not been listed since")
	s.down["a"] = false
	s.runPasses()
	s.planShards()
	require.Zero(t, left())

	note("a")
	s.handler.shards = nil
	s.upstream[""] = []string{"a/1", "b/1"}
	s.completePass()
	require.Equal(t, 2, left(), "the listings of shards may go on")
	quiet()
	s.completePass()
	require.Zero(t, left())
}

// While a complete listing of a shard runs, unchanged informs of that shard leave their mark, and those of others cost nothing.
func TestOnlyInformsOfTheShardThatIsListedLeaveAMark(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": {"a/0"}, "b": {"b/0"}})
	s.runPasses()
	mark := func(id string) (xid string) {
		require.NoError(t, s.Pool.QueryRow(t.Context(), "SELECT written_by::text FROM delta_resource WHERE object_id = $1", id).Scan(&xid))
		return xid
	}
	for name, inform := range map[string]func(){
		"one": func() { s.inform(inShard("a", "a/0")); s.inform(inShard("b", "b/0")) },
		"a set": func() {
			_, err := db.InformRetrying(context.Background(), s.Pool, []deltatype.ObjectInformParams{inShard("a", "a/0"), inShard("b", "b/0")},
				db.InformOptions{DefaultMaxAttempts: 10, Revive: true})
			require.NoError(t, err)
		},
	} {
		a, b := mark("a/0"), mark("b/0")
		before := s.handler.inform
		s.handler.inform = func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
			inform()
			return lists()(ctx, o)
		}
		progress, err := s.listShard(activities.ShardPass{Shard: "a"})
		s.handler.inform = before
		require.NoError(t, err)
		require.Zero(t, progress.Deleted+int(progress.Withheld), name)
		require.NotEqual(t, a, mark("a/0"), name)
		require.Equal(t, b, mark("b/0"), name)
	}
}
