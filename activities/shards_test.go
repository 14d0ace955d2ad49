package activities_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/soak"
)

// Ten of a hundred are within the share of the kind, and all of their shard.
func TestAnEmptyShardDeletesNothingOfItselfOrOthers(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{})
	for i := range 10 {
		shard := fmt.Sprintf("s%d", i)
		s.upstream[shard] = shardIDs(shard, 10)
	}
	s.runPasses()
	s.upstream["s3"] = nil
	s.upstream["s4"] = s.upstream["s4"][:8]
	s.upstream["s5"] = s.upstream["s5"][:4]
	came := s.runPasses()
	require.EqualValues(t, 10, came["s3"].Withheld)
	require.Equal(t, 2, came["s4"].Deleted, "within the bounds of its shard")
	require.EqualValues(t, 6, came["s5"].Withheld, "out of them")
	require.Equal(t, map[string]int64{"s3": 10, "s5": 6}, s.withheldCounts())
	for i := range 10 {
		shard := fmt.Sprintf("s%d", i)
		require.Len(t, s.liveIDs(shard), map[string]int{"s4": 8}[shard]+map[bool]int{true: 10}[shard != "s4"], shard)
	}

	s.decideWithheld(activities.Approved, "s5", 6)
	came = s.runPasses()
	require.Equal(t, 6, came["s5"].Deleted)
	require.EqualValues(t, 10, came["s3"].Withheld, "a decision is of one shard")
	require.Equal(t, map[string]int64{"s3": 10}, s.withheldCounts())
}

func TestAShardThatFailsTouchesNoOther(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": shardIDs("a", 5), "b": shardIDs("b", 5), "c": shardIDs("c", 5)})
	s.Listing = activities.Listing{Full: true, MostDeleted: 2, MostDeletedShare: 0.5}
	s.runPasses()
	before := map[string]db.Shard{"a": s.shardRow("a"), "b": s.shardRow("b"), "c": s.shardRow("c")}
	require.Positive(t, before["b"].LastInformTime.Unix())
	require.NotNil(t, before["b"].LastFullListing)

	s.down["b"] = true
	s.runPasses()
	require.Equal(t, before["b"].LastInformTime, s.shardRow("b").LastInformTime)
	require.Contains(t, s.shardRow("b").Error, "b is down")
	require.NotNil(t, s.shardRow("b").FailedAt)
	require.Empty(t, s.shardRow("a").Error)
	require.True(t, s.shardRow("a").LastInformTime.After(before["a"].LastInformTime))
	require.True(t, s.shardRow("c").LastInformTime.After(before["c"].LastInformTime), "also of one that comes later")
	require.Equal(t, before["b"].LastInformTime.UTC(), *s.given["b"].After)

	// A listing of everything that breaks off deletes nothing; the others do.
	full := func() {
		for _, pass := range s.planShards() {
			_, err := s.pass(func(in *activities.InformInput) {
				in.Options.Shard, in.Named, in.FullListing, in.Pass = pass.Shard, true, true, uuid.NewString()
			})
			require.Equal(t, s.down[pass.Shard], err != nil)
			require.Nil(t, s.given[pass.Shard].After)
		}
	}
	for shard := range s.upstream {
		s.upstream[shard] = shardIDs(shard, 4)
	}
	full()
	require.Len(t, s.liveIDs("a"), 4)
	require.Len(t, s.liveIDs("b"), 5)
	require.Len(t, s.liveIDs("c"), 4)
	s.down["b"] = false
	full()
	require.Len(t, s.liveIDs("b"), 4)
	require.Empty(t, s.shardRow("b").Error)
}

func TestAShardThatIsNoLongerNamedIsWithheldUntilItIsDecided(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	gone := func(t *testing.T) *sharded {
		s := newSharded(t, map[string][]string{"a": shardIDs("a", 2), "b": shardIDs("b", 1)})
		s.runPasses()
		delete(s.upstream, "b")
		require.EqualValues(t, 1, s.runPasses()["b"].Withheld, "however few they are")
		require.NotNil(t, s.shardRow("b").GoneAt)
		require.Equal(t, map[string]int64{"b": 1}, s.withheldCounts())
		return s
	}
	t.Run("and deleted when it is approved", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decideWithheld(activities.Approved, "b", 1)
		require.Equal(t, 1, s.runPasses()["b"].Deleted)
		require.Empty(t, s.liveIDs("b"))
		require.Len(t, s.liveIDs("a"), 2)
		require.Empty(t, s.withheldCounts())
		passes := func(shard string) []db.DeltaInform {
			all, err := db.New().ListInforms(t.Context(), s.env.Pool, db.ListInformsParams{Kind: kind, Shard: shard, Most: 10})
			require.NoError(t, err)
			return all
		}
		require.Empty(t, passes("b"), "its history goes with it")
		require.Len(t, passes("a"), 3)
		require.NotContains(t, s.runPasses(), "b", "nothing is left of it")
	})
	t.Run("and kept when it is dismissed", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decideWithheld(activities.Dismissed, "b", 1)
		require.EqualValues(t, 1, s.runPasses()["b"].Withheld)
		require.Len(t, s.liveIDs("b"), 1)
		s.inform(inShard("b", "b/later"))
		s.syncAll()
		s.forgetCount()
		require.EqualValues(t, 2, s.runPasses()["b"].Withheld)
		rows, err := db.New().ListWithheld(t.Context(), s.env.Pool)
		require.NoError(t, err)
		require.Nil(t, rows[0].Decision, "more needs another decision")
	})
	t.Run("and counted once an hour meanwhile", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.inform(inShard("b", "b/later"))
		s.syncAll()
		s.planShards()
		again, err := s.reportedPass(func(in *activities.InformInput) {
			in.Options.Shard, in.Named, in.Gone, in.Pass = "b", true, true, uuid.NewString()
		})
		require.NoError(t, err)
		require.EqualValues(t, 1, again.Withheld, "it was counted lately")
		require.Equal(t, []string{"b/0", "b/later"}, again.Pass.Withheld)
		s.decideWithheld(activities.Approved, "b", 1)
		require.EqualValues(t, 2, s.runPasses()["b"].Withheld, "more is left than was looked at")
		require.Equal(t, map[string]int64{"b": 2}, s.withheldCounts())
		require.Len(t, s.liveIDs("b"), 2)
	})
	t.Run("and forgotten once it was deleted otherwise", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		_, err := s.Pool.Exec(t.Context(), "UPDATE delta_resource SET state = 'deleted' WHERE shard = 'b'")
		require.NoError(t, err)
		require.Zero(t, s.runPasses()["b"].Withheld)
		require.Empty(t, s.withheldCounts())
		require.NotContains(t, s.runPasses(), "b", "nothing is left of it")
	})
	t.Run("and live when it comes back", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decideWithheld(activities.Approved, "b", 1)
		late := s.planShards() // of a run that began before
		s.upstream["b"] = shardIDs("b", 3)
		came := s.runPasses()
		require.Equal(t, 3, came["b"].Listed)
		require.Nil(t, s.shardRow("b").GoneAt)
		require.Empty(t, s.withheldCounts(), "what was approved was of a shard that is gone")
		for _, pass := range late {
			if pass.Gone {
				progress, err := s.listShard(pass)
				require.NoError(t, err)
				require.Equal(t, activities.InformProgress{}, progress)
			}
		}
		require.Len(t, s.liveIDs("b"), 3)
	})
	t.Run("also if deletions of it were approved while it was named", func(t *testing.T) {
		t.Parallel()
		s := newSharded(t, map[string][]string{"a": shardIDs("a", 4), "b": shardIDs("b", 4)})
		s.runPasses()
		s.upstream["b"] = nil
		s.runPasses()
		s.decideWithheld(activities.Approved, "b", 4)
		delete(s.upstream, "b")
		require.EqualValues(t, 4, s.runPasses()["b"].Withheld)
		require.Len(t, s.liveIDs("b"), 4)
	})
	t.Run("and so are all if none is named", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		delete(s.upstream, "a")
		came := s.runPasses()
		require.EqualValues(t, 2, came["a"].Withheld)
		require.EqualValues(t, 1, came["b"].Withheld)
		require.Len(t, s.liveIDs("a"), 2)
	})
	t.Run("and those that only resources say", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.inform(inShard("never named", "x"))
		s.syncAll()
		require.EqualValues(t, 1, s.runPasses()["never named"].Withheld)
	})
	t.Run("unless options leave out some", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		passes := s.planShards(func(in *activities.InformInput) { in.Options.Limit = 1 })
		require.Equal(t, []activities.ShardPass{{Shard: "a"}}, passes)
	})
}

func TestShardsThatCannotBeNamedLeaveAllAsItIs(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": shardIDs("a", 2)})
	s.runPasses()
	before := s.shardRow("a")
	s.handler.shards = func() ([]string, error) { return nil, errors.New("the list of accounts is down") }
	_, err := s.pass()
	require.ErrorContains(t, err, "naming the shards of kind thing: the list of accounts is down")
	require.Equal(t, before, s.shardRow("a"))
	require.Contains(t, s.shardRow("").Error, "the list of accounts is down")
	passes, err := db.New().ListInforms(t.Context(), s.env.Pool, db.ListInformsParams{Kind: kind, Most: 1})
	require.NoError(t, err)
	require.Contains(t, passes[0].Error, "the list of accounts is down")
	require.Empty(t, passes[0].Shard)

	s.handler.shards = func() ([]string, error) { return []string{"a"}, nil }
	s.planShards()
	require.Empty(t, s.shardRow("").Error)
}

func TestWhichShardsARunLists(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"a": nil, "b": nil})
	scheduled := func(in *activities.InformInput) { in.Trigger = activities.TriggerSchedule }
	one := func(in *activities.InformInput) { in.Options.Shard = "b" }
	both := []activities.ShardPass{{Shard: "a"}, {Shard: "b"}}
	require.Equal(t, both, s.planShards())
	require.Equal(t, both[1:], s.planShards(one))
	n, err := db.New().PauseShard(t.Context(), s.Pool, db.PauseShardParams{Kind: kind, Shard: "b", Paused: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, both[:1], s.planShards(scheduled))
	require.Equal(t, both, s.planShards(), "runs that are asked for list what is paused")
	require.Equal(t, both[1:], s.planShards(one))

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
