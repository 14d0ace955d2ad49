package activities_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// sharded is a harness whose kind is listed shard by shard, each of which lists all that it has.
type sharded struct {
	*harness
	// upstream has the ids of each shard, down those whose listing fails, and given the options that each was listed with last.
	upstream map[string][]string
	down     map[string]bool
	given    map[string]deltatype.InformOptions
}

func inShard(shard, id string) deltatype.ObjectInformParams {
	o := object(id, "1")
	o.Shard = shard
	return o
}

func newSharded(t *testing.T, upstream map[string][]string) *sharded {
	t.Helper()
	s := &sharded{upstream: upstream, down: map[string]bool{}, given: map[string]deltatype.InformOptions{}}
	s.harness = newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		s.given[o.Shard] = o
		var items []activities.Listed
		for _, id := range s.upstream[o.Shard] {
			items = append(items, item(inShard(o.Shard, id)))
		}
		if s.down[o.Shard] {
			items = append(items, activities.Listed{Fatal: true, Err: errors.New(o.Shard + " is down")})
		}
		return lists(items...)(ctx, o)
	})
	s.handler.shards = func() ([]string, error) { return slices.Sorted(maps.Keys(s.upstream)), nil }
	s.Listing = activities.Listing{Complete: true, MostDeleted: 2, MostDeletedShare: 0.5}
	return s
}

// settle has all that is to be worked synced.
func (h *harness) settle() {
	h.t.Helper()
	_, err := h.env.Pool.Exec(context.Background(), "UPDATE delta_resource SET state = 'synced', synced_at = now(), due_at = NULL WHERE state <> 'deleted'")
	require.NoError(h.t, err)
}

// plan has the shards named.
func (s *sharded) plan(change ...func(*activities.InformInput)) []activities.ShardPass {
	s.t.Helper()
	progress, err := s.pass(change...)
	require.NoError(s.t, err)
	require.NotNil(s.t, progress.Shards)
	return progress.Shards.Passes
}

// list runs a pass of a run.
func (s *sharded) list(pass activities.ShardPass) (activities.InformProgress, error) {
	defer s.settle()
	return s.pass(func(in *activities.InformInput) {
		in.Options.Shard, in.Named, in.Gone, in.Pass = pass.Shard, true, pass.Gone, uuid.NewString()
	})
}

// run runs all passes of a run, and returns what each came to. It requires that those fail which are down, and no others.
func (s *sharded) run() map[string]activities.InformProgress {
	s.t.Helper()
	all := map[string]activities.InformProgress{}
	for _, pass := range s.plan() {
		progress, err := s.list(pass)
		require.Equal(s.t, s.down[pass.Shard], err != nil, "%s: %v", pass.Shard, err)
		all[pass.Shard] = progress
	}
	return all
}

// live are the ids of a shard that are not deleted; those of rows without a shard for an empty one.
func (s *sharded) live(shard string) (ids []string) {
	s.t.Helper()
	rows, err := s.env.Pool.Query(context.Background(),
		"SELECT object_id FROM delta_resource WHERE coalesce(shard, '') = $1 AND state <> 'deleted' ORDER BY object_id", shard)
	require.NoError(s.t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(s.t, rows.Scan(&id))
		ids = append(ids, id)
	}
	return ids
}

func (s *sharded) shard(name string) db.Shard {
	s.t.Helper()
	row, err := db.New().GetShard(context.Background(), s.env.Pool, db.GetShardParams{Kind: kind, Shard: name})
	require.NoError(s.t, err)
	return row
}

func (s *sharded) withheld() map[string]int64 {
	s.t.Helper()
	rows, err := db.New().ListWithheld(context.Background(), s.env.Pool)
	require.NoError(s.t, err)
	all := map[string]int64{}
	for _, w := range rows {
		all[w.Shard] = w.Missing
	}
	return all
}

// forgetCount has what is withheld counted again.
func (s *sharded) forgetCount() {
	s.t.Helper()
	_, err := s.Pool.Exec(context.Background(), "UPDATE delta_withheld SET seen_at = seen_at - interval '2 hours'")
	require.NoError(s.t, err)
}

func (s *sharded) decide(decision, shard string, missing int64) {
	s.t.Helper()
	_, err := db.New().DecideWithheld(context.Background(), s.env.Pool,
		db.DecideWithheldParams{Decision: decision, Kind: kind, Shard: shard, Missing: &missing})
	require.NoError(s.t, err)
}

// tens are n ids of a shard.
func tens(shard string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s/%d", shard, i))
	}
	return ids
}

// Ten of a hundred are within the share of the kind, and all of their shard.
func TestAnEmptyShardDeletesNothingOfItselfOrOthers(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{})
	for i := range 10 {
		shard := fmt.Sprintf("s%d", i)
		s.upstream[shard] = tens(shard, 10)
	}
	s.run()
	s.upstream["s3"] = nil
	s.upstream["s4"] = s.upstream["s4"][:8]
	s.upstream["s5"] = s.upstream["s5"][:4]
	came := s.run()
	require.EqualValues(t, 10, came["s3"].Withheld)
	require.Equal(t, 2, came["s4"].Deleted, "within the bounds of its shard")
	require.EqualValues(t, 6, came["s5"].Withheld, "out of them")
	require.Equal(t, map[string]int64{"s3": 10, "s5": 6}, s.withheld())
	for i := range 10 {
		shard := fmt.Sprintf("s%d", i)
		require.Len(t, s.live(shard), map[string]int{"s4": 8}[shard]+map[bool]int{true: 10}[shard != "s4"], shard)
	}

	s.decide(activities.Approved, "s5", 6)
	came = s.run()
	require.Equal(t, 6, came["s5"].Deleted)
	require.EqualValues(t, 10, came["s3"].Withheld, "a decision is of one shard")
	require.Equal(t, map[string]int64{"s3": 10}, s.withheld())
}

func TestAShardThatFailsTouchesNoOther(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": tens("a", 5), "b": tens("b", 5), "c": tens("c", 5)})
	s.Listing = activities.Listing{Full: true, MostDeleted: 2, MostDeletedShare: 0.5}
	s.run()
	before := map[string]db.Shard{"a": s.shard("a"), "b": s.shard("b"), "c": s.shard("c")}
	require.Positive(t, before["b"].LastInformTime.Unix())
	require.NotNil(t, before["b"].LastFullListing)

	s.down["b"] = true
	s.run()
	require.Equal(t, before["b"].LastInformTime, s.shard("b").LastInformTime)
	require.Contains(t, s.shard("b").Error, "b is down")
	require.NotNil(t, s.shard("b").FailedAt)
	require.Empty(t, s.shard("a").Error)
	require.True(t, s.shard("a").LastInformTime.After(before["a"].LastInformTime))
	require.True(t, s.shard("c").LastInformTime.After(before["c"].LastInformTime), "also of one that comes later")
	require.Equal(t, before["b"].LastInformTime.UTC(), *s.given["b"].After)

	// A listing of everything that breaks off deletes nothing; the others do.
	full := func() {
		for _, pass := range s.plan() {
			_, err := s.pass(func(in *activities.InformInput) {
				in.Options.Shard, in.Named, in.FullListing, in.Pass = pass.Shard, true, true, uuid.NewString()
			})
			require.Equal(t, s.down[pass.Shard], err != nil)
			require.Nil(t, s.given[pass.Shard].After)
		}
	}
	for shard := range s.upstream {
		s.upstream[shard] = tens(shard, 4)
	}
	full()
	require.Len(t, s.live("a"), 4)
	require.Len(t, s.live("b"), 5)
	require.Len(t, s.live("c"), 4)
	s.down["b"] = false
	full()
	require.Len(t, s.live("b"), 4)
	require.Empty(t, s.shard("b").Error)
}

func TestAShardThatIsNoLongerNamedIsWithheldUntilItIsDecided(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T) *sharded {
		s := newSharded(t, map[string][]string{"a": tens("a", 2), "b": tens("b", 1)})
		s.run()
		delete(s.upstream, "b")
		require.EqualValues(t, 1, s.run()["b"].Withheld, "however few they are")
		require.NotNil(t, s.shard("b").GoneAt)
		require.Equal(t, map[string]int64{"b": 1}, s.withheld())
		return s
	}
	t.Run("and deleted when it is approved", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decide(activities.Approved, "b", 1)
		require.Equal(t, 1, s.run()["b"].Deleted)
		require.Empty(t, s.live("b"))
		require.Len(t, s.live("a"), 2)
		require.Empty(t, s.withheld())
		passes := func(shard string) []db.DeltaInform {
			all, err := db.New().ListInforms(t.Context(), s.env.Pool, db.ListInformsParams{Kind: kind, Shard: shard, Most: 10})
			require.NoError(t, err)
			return all
		}
		require.Empty(t, passes("b"), "its history goes with it")
		require.Len(t, passes("a"), 3)
		require.NotContains(t, s.run(), "b", "nothing is left of it")
	})
	t.Run("and kept when it is dismissed", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decide(activities.Dismissed, "b", 1)
		require.EqualValues(t, 1, s.run()["b"].Withheld)
		require.Len(t, s.live("b"), 1)
		s.inform(inShard("b", "b/later"))
		s.settle()
		s.forgetCount()
		require.EqualValues(t, 2, s.run()["b"].Withheld)
		rows, err := db.New().ListWithheld(t.Context(), s.env.Pool)
		require.NoError(t, err)
		require.Nil(t, rows[0].Decision, "more is decided anew")
	})
	t.Run("and counted once an hour meanwhile", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.inform(inShard("b", "b/later"))
		s.settle()
		s.plan()
		again, err := s.reportedPass(func(in *activities.InformInput) {
			in.Options.Shard, in.Named, in.Gone, in.Pass = "b", true, true, uuid.NewString()
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, again.Withheld, "it was counted lately")
		require.Equal(t, []string{"b/0", "b/later"}, again.Pass.Withheld)
		s.decide(activities.Approved, "b", 1)
		require.EqualValues(t, 2, s.run()["b"].Withheld, "more is left than was looked at")
		require.Equal(t, map[string]int64{"b": 2}, s.withheld())
		require.Len(t, s.live("b"), 2)
	})
	t.Run("and forgotten once it was deleted otherwise", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		_, err := s.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'deleted' WHERE shard = 'b'")
		require.NoError(t, err)
		require.Zero(t, s.run()["b"].Withheld)
		require.Empty(t, s.withheld())
		require.NotContains(t, s.run(), "b", "nothing is left of it")
	})
	t.Run("and live when it comes back", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decide(activities.Approved, "b", 1)
		late := s.plan() // of a run that began before
		s.upstream["b"] = tens("b", 3)
		came := s.run()
		require.Equal(t, 3, came["b"].Listed)
		require.Nil(t, s.shard("b").GoneAt)
		require.Empty(t, s.withheld(), "what was approved was of a shard that is gone")
		for _, pass := range late {
			if pass.Gone {
				progress, err := s.list(pass)
				require.NoError(t, err)
				require.Equal(t, activities.InformProgress{}, progress)
			}
		}
		require.Len(t, s.live("b"), 3)
	})
	t.Run("also if deletions of it were approved while it was named", func(t *testing.T) {
		t.Parallel()
		s := newSharded(t, map[string][]string{"a": tens("a", 4), "b": tens("b", 4)})
		s.run()
		s.upstream["b"] = nil
		s.run()
		s.decide(activities.Approved, "b", 4)
		delete(s.upstream, "b")
		require.EqualValues(t, 4, s.run()["b"].Withheld)
		require.Len(t, s.live("b"), 4)
	})
	t.Run("and so are all if none is named", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		delete(s.upstream, "a")
		came := s.run()
		require.EqualValues(t, 2, came["a"].Withheld)
		require.EqualValues(t, 1, came["b"].Withheld)
		require.Len(t, s.live("a"), 2)
	})
	t.Run("and those that only resources say", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.inform(inShard("never named", "x"))
		s.settle()
		require.EqualValues(t, 1, s.run()["never named"].Withheld)
	})
	t.Run("unless options leave out some", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		passes := s.plan(func(in *activities.InformInput) { in.Options.Limit = 1 })
		require.Equal(t, []activities.ShardPass{{Shard: "a"}}, passes)
	})
}

func TestShardsThatCannotBeNamedLeaveAllAsItIs(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": tens("a", 2)})
	s.run()
	before := s.shard("a")
	s.handler.shards = func() ([]string, error) { return nil, errors.New("the list of accounts is down") }
	_, err := s.pass()
	require.ErrorContains(t, err, "naming the shards of kind thing: the list of accounts is down")
	require.Equal(t, before, s.shard("a"))
	require.Contains(t, s.shard("").Error, "the list of accounts is down")
	passes, err := db.New().ListInforms(t.Context(), s.env.Pool, db.ListInformsParams{Kind: kind, Most: 1})
	require.NoError(t, err)
	require.Contains(t, passes[0].Error, "the list of accounts is down")
	require.Empty(t, passes[0].Shard)

	s.handler.shards = func() ([]string, error) { return []string{"a"}, nil }
	s.plan()
	require.Empty(t, s.shard("").Error)
}

func TestWhichShardsARunLists(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": nil, "b": nil})
	scheduled := func(in *activities.InformInput) { in.Trigger = activities.TriggerSchedule }
	one := func(in *activities.InformInput) { in.Options.Shard = "b" }
	both := []activities.ShardPass{{Shard: "a"}, {Shard: "b"}}
	require.Equal(t, both, s.plan())
	require.Equal(t, both[1:], s.plan(one))
	n, err := db.New().PauseShard(t.Context(), s.Pool, db.PauseShardParams{Kind: kind, Shard: "b", Paused: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, both[:1], s.plan(scheduled))
	require.Equal(t, both, s.plan(), "runs that are asked for list what is paused")
	require.Equal(t, both[1:], s.plan(one))

	progress, err := s.pass(scheduled)
	require.NoError(t, err)
	require.Equal(t, hour/4*3, progress.Shards.Spread)
	progress, err = s.pass()
	require.NoError(t, err)
	require.Zero(t, progress.Shards.Spread)

	var refused []activities.PassObservation
	s.PassEnded = func(o activities.PassObservation) { refused = append(refused, o) }
	_, err = s.pass(func(in *activities.InformInput) { in.Options.Shard = "c" })
	application := new(temporal.ApplicationError)
	require.ErrorAs(t, err, &application)
	require.Equal(t, activities.UnknownShard, application.Type())
	require.True(t, application.NonRetryable())
	require.ErrorContains(t, err, `kind thing has no shard "c": its controller names "a", "b"`)

	// A worker with another version of the controller.
	s.handler.shards = nil
	for _, asks := range []func(*activities.InformInput){one, func(in *activities.InformInput) { in.Options.Shard, in.Named = "b", true }} {
		_, err = s.pass(asks)
		require.ErrorAs(t, err, &application)
		require.Equal(t, activities.NoShards, application.Type())
		require.False(t, application.NonRetryable(), "another worker may have it")
	}
	require.Empty(t, s.given, "nothing was listed")
	require.Len(t, refused, 3, "the log, metrics and hooks hear of each")
	for i, shard := range []string{"c", "b", "b"} {
		require.Equal(t, shard, refused[i].Shard)
		require.ErrorContains(t, refused[i].Err, `shard "`+shard+`"`)
	}
	named, err := db.New().GetShard(t.Context(), s.Pool, db.GetShardParams{Kind: kind, Shard: ""})
	require.NoError(t, err)
	require.Empty(t, named.Error, "the listings of the kind have not failed")
}

// What the shards are may be known, and not be noted.
func TestShardsThatCannotBeNotedFailTheRunVisibly(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": {"1"}})
	var ended []activities.PassObservation
	s.PassEnded = func(o activities.PassObservation) { ended = append(ended, o) }
	_, err := s.Pool.Exec(t.Context(), "ALTER TABLE delta_withheld RENAME TO elsewhere")
	require.NoError(t, err)
	_, err = s.pass()
	require.ErrorContains(t, err, "noting the shards of kind thing")
	require.Len(t, ended, 1)
	require.ErrorContains(t, ended[0].Err, "noting the shards of kind thing")
	named, err := db.New().GetShard(t.Context(), s.Pool, db.GetShardParams{Kind: kind, Shard: ""})
	require.NoError(t, err)
	require.Contains(t, named.Error, "noting the shards of kind thing", "the kind shows it")
}

// A deploy of a controller with shards, in which workers of both versions list.
func TestAListingWithoutShardsDeletesNothingOfShardsByItself(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"": append(tens("a", 2), "old", "older")})
	shards := s.handler.shards
	whole := func() activities.InformProgress {
		s.t.Helper()
		defer s.settle()
		return s.completePass()
	}
	s.handler.shards = nil
	whole()
	require.Len(t, s.live(""), 4)

	s.handler.shards = shards
	s.upstream = map[string][]string{"a": tens("a", 2), "b": tens("b", 1)}
	require.Equal(t, activities.InformProgress{Listed: 2}, s.run()["a"])
	require.Equal(t, tens("a", 2), s.live("a"), "the column is written by the first listing of the shard")
	require.Equal(t, []string{"old", "older"}, s.live(""), "no shard's listing deletes what has none")

	s.handler.shards = nil
	s.upstream[""] = []string{"old"}
	require.EqualValues(t, 4, whole().Withheld, "all that it leaves out, since some of it is of shards")
	require.Len(t, s.live("a"), 2)
	require.Len(t, s.live(""), 2)
	require.Equal(t, map[string]int64{"": 4}, s.withheld())

	s.handler.shards = shards
	delete(s.upstream, "")
	s.run()
	require.Empty(t, s.withheld(), "with shards, such a listing has no say")

	// For good without shards: what somebody has approved is deleted.
	s.handler.shards = nil
	s.upstream[""] = []string{"a/0", "a/1", "old", "older"} // their objects say no shard any more
	require.EqualValues(t, 1, whole().Withheld)
	require.Len(t, s.live(""), 4)
	s.decide(activities.Approved, "", 1)
	require.Equal(t, 1, whole().Deleted)
	require.Empty(t, s.live("b"))
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
	s.run()
	require.Equal(t, []string{"a x"}, refused(), "b's complete listing comes after it")
	bad["b"] = []activities.Listed{item(inShard("b", "x"))}
	s.run()
	require.Equal(t, []string{"a x"}, refused(), "that b's is taken does not make a's right")
	bad["a"] = nil
	s.run()
	require.Empty(t, refused())
	require.Equal(t, []string{"x"}, s.live("b"))
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
	s.settle()
	note("")
	s.handler.shards = shards
	delete(s.upstream, "")
	s.run()
	s.plan()
	require.Equal(t, 1, left(), "the listings without shards may go on; what they withheld has no effect")
	quiet()
	s.down["a"] = true
	_, err := s.Pool.Exec(t.Context(), "UPDATE delta_shard SET succeeded_at = NULL WHERE shard = 'a'")
	require.NoError(t, err)
	s.plan()
	require.Equal(t, 1, left(), "a has not been listed since")
	s.down["a"] = false
	s.run()
	s.plan()
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
	s.run()
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
		progress, err := s.list(activities.ShardPass{Shard: "a"})
		s.handler.inform = before
		require.NoError(t, err)
		require.Zero(t, progress.Deleted+int(progress.Withheld), name)
		require.NotEqual(t, a, mark("a/0"), name)
		require.Equal(t, b, mark("b/0"), name)
	}
}
