package activities_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// refusedBy are the refused objects, each after the shard of its listing.
func (h *harness) refusedBy() (all []string) {
	h.t.Helper()
	rows, err := db.New().ListRefused(context.Background(), h.Pool, db.ListRefusedParams{Kind: kind, Most: 10})
	require.NoError(h.t, err)
	for _, r := range rows {
		all = append(all, r.Shard+" "+r.ObjectID)
	}
	return all
}

// ageListings makes all passes so far begin two days earlier.
func (h *harness) ageListings() {
	h.t.Helper()
	_, err := h.Pool.Exec(context.Background(), "UPDATE delta_inform SET started_at = started_at - interval '2 days'")
	require.NoError(h.t, err)
}

// logTo has the activities log into a text. It is read when no pass runs.
func (h *harness) logTo() *bytes.Buffer {
	var log bytes.Buffer
	h.Logger = slog.New(slog.NewTextHandler(&log, nil))
	return &log
}

// hasLine reports whether a line has all of these texts.
func hasLine(log *bytes.Buffer, texts ...string) bool {
	for line := range strings.Lines(log.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			return true
		}
	}
	return false
}

// listSince returns a provider that names objects created after a time, to listings of the whole kind and of shard a.
func listSince(given map[string][]time.Time, old *activities.Listed) listing {
	return func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		given[o.Shard] = append(given[o.Shard], *o.After)
		if o.After.Unix() > 0 || o.Shard == "b" {
			return lists()(ctx, o)
		}
		return lists(*old)(ctx, o)
	}
}

// A kind is listed as a whole, then by shards, and as a whole again, each for longer than it takes to forget what the others have noted. An object that is
// refused throughout, and older than each cursor, is shown throughout, and taken when it is valid.
func TestARefusedObjectSurvivesAWhileOfListingByShards(t *testing.T) {
	t.Parallel()
	for name, isRefusedFirst := range map[string]bool{"refused from the beginning": true, "refused since there are shards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, given := newSharded(t, map[string][]string{"a": nil, "b": nil}), map[string][]time.Time{}
			s.Listing = activities.Listing{Overlap: time.Second}
			log := s.logTo()
			old := badItem("x")
			if !isRefusedFirst {
				old = item(object("x", "1"))
			}
			s.handler.inform = listSince(given, &old)
			s.handler.encode = func([]byte) error { return errors.New("still refused") }
			shards := s.handler.shards
			whole := func() {
				_, err := s.pass()
				require.NoError(t, err)
			}

			s.handler.shards = nil
			whole()
			whole()
			require.Positive(t, given[""][1].Unix(), "it goes on from its cursor")
			old = badItem("x")
			s.ageListings()

			s.handler.shards = shards
			s.runPasses()
			s.runPasses()
			require.Positive(t, given["a"][1].Unix())
			require.Equal(t, []string{"a x"}, s.refusedBy(), "what the whole listing had refused is forgotten, and x is not")
			require.True(t, hasLine(log, "the kind is listed in another way than before", "cursors=1", "by_shards=true"))
			s.ageListings()

			s.handler.shards = nil
			whole()
			require.Zero(t, given[""][2].Unix(), "it begins with everything")
			require.Equal(t, []string{" x"}, s.refusedBy())
			require.True(t, hasLine(log, "the kind is listed in another way than before", "refused=1", "cursors=2", "by_shards=false"))
			whole()
			require.Positive(t, given[""][3].Unix())
			require.Equal(t, []string{" x"}, s.refusedBy())
			require.Empty(t, s.namedShards(), "shards that are not listed any more are not behind")
			s.ageListings()

			s.handler.shards = shards
			s.runPasses()
			require.Zero(t, given["a"][2].Unix(), "so do those of shards")
			s.runPasses()
			require.Equal(t, []string{"a x"}, s.refusedBy())

			old = item(inShard("a", "x"))
			s.handler.encode = nil
			_, err := s.pass(func(in *activities.InformInput) { in.Options.Shard, in.Named, in.FullListing = "a", true, true })
			require.NoError(t, err)
			require.Empty(t, s.refusedBy())
			require.NotNil(t, s.row(s.ref("x")))
		})
	}
}

// namedShards returns the shards that the kind has a row for.
func (s *sharded) namedShards() (all []string) {
	s.t.Helper()
	rows, err := db.New().ListShards(context.Background(), s.Pool)
	require.NoError(s.t, err)
	for _, r := range rows {
		if r.Shard != "" {
			all = append(all, r.Shard)
		}
	}
	return all
}

// Listings that still run, as in a rolling deploy, keep their cursors, and so does a shard that somebody has paused keep its row.
func TestOnlyListingsThatRestAreForgotten(t *testing.T) {
	t.Parallel()
	s, given := newSharded(t, map[string][]string{"a": nil, "b": nil}), map[string][]time.Time{}
	s.Listing = activities.Listing{Overlap: time.Second}
	old := item(object("x", "1"))
	s.handler.inform = listSince(given, &old)
	shards := s.handler.shards
	s.runPasses()
	s.handler.shards = nil
	_, err := s.pass()
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, s.namedShards())
	require.Positive(t, s.shardRow("a").LastInformTime.Unix())

	_, err = db.New().PauseShard(t.Context(), s.Pool, db.PauseShardParams{Kind: kind, Shard: "b", Paused: true})
	require.NoError(t, err)
	s.ageListings()
	_, err = s.pass()
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, s.namedShards())
	require.Zero(t, s.shardRow("b").LastInformTime.Unix())
	require.True(t, s.shardRow("b").Paused)

	s.handler.shards = shards
	require.Equal(t, []activities.ShardPass{{Shard: "a"}}, s.planShards(func(in *activities.InformInput) { in.Trigger = activities.TriggerSchedule }))
}

// A pass that went on from a cursor moves none that was reset meanwhile: it has not listed what is older.
func TestAPassMovesNoCursorThatWasResetMeanwhile(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]string{
		"reset":   "UPDATE delta_shard SET last_inform_time = '1970-01-01 00:00:00Z'",
		"removed": "DELETE FROM delta_shard",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInformer(t, lists())
			log := h.logTo()
			_, err := h.pass()
			require.NoError(t, err)
			h.handler.inform = func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
				require.Positive(t, o.After.Unix())
				_, err := h.Pool.Exec(ctx, forget)
				require.NoError(t, err)
				return lists()(ctx, o)
			}
			_, err = h.pass()
			require.NoError(t, err)
			require.Zero(t, h.cursor().Unix())
			require.True(t, hasLine(log, "the cursor was reset while the pass went on from it"))

			h.handler.inform = lists()
			_, err = h.pass()
			require.NoError(t, err)
			require.Positive(t, h.cursor().Unix(), "one that lists everything moves it")
		})
	}
}

// Naming shards ends what listings of the whole kind had withheld, and what was decided. The log says so, and what becomes of resources without a shard.
func TestNamingShardsLogsWhichDeletionsItForgets(t *testing.T) {
	t.Parallel()
	s := newSharded(t, map[string][]string{"": {"1", "2", "3", "4"}})
	log, shards := s.logTo(), s.handler.shards
	s.handler.shards = nil
	s.completePass()
	s.syncAll()
	s.upstream[""] = nil
	require.EqualValues(t, 4, s.completePass().Withheld)
	s.decideWithheld(activities.Approved, "", 4)

	s.handler.shards = shards
	s.upstream = map[string][]string{"a": {"a/1", "a/2", "a/3", "a/4"}}
	forgets := []string{"level=WARN", "the controller names shards", "missing=4", "of=4", "decision=approved"}
	s.runPasses()
	require.True(t, hasLine(log, forgets...), "%s", log)
	log.Reset()
	s.runPasses()
	require.False(t, hasLine(log, forgets[:2]...), "there is nothing to forget any more")

	s.upstream = map[string][]string{"b": nil}
	require.EqualValues(t, 4, s.runPasses()["a"].Withheld)
	log.Reset()
	s.upstream["a"] = []string{"a/1", "a/2", "a/3", "a/4"}
	s.runPasses()
	require.True(t, hasLine(log, "level=WARN", "shards are named again, or no longer", `shards="\"a\""`), "%s", log)
}

// What a shard had refused is shown until it is forgotten, and tried when it is named again.
func TestAGoneShardKeepsItsRefusedObjectsUntilItIsForgotten(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T) *sharded {
		t.Helper()
		s := newSharded(t, map[string][]string{"a": {"a/0"}, "b": {"b/0"}})
		s.Listing = activities.Listing{Full: true, MostDeleted: 2, MostDeletedShare: 0.5}
		incremental := s.handler.inform
		s.handler.inform = func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
			switch {
			case o.Shard != "b":
				return incremental(ctx, o)
			case o.After != nil && o.After.Unix() > 0:
				return lists()(ctx, o)
			}
			return lists(item(inShard("b", "b/0")), badItem("x"))(ctx, o)
		}
		s.runPasses()
		delete(s.upstream, "b")
		require.EqualValues(t, 1, s.runPasses()["b"].Withheld)
		require.Equal(t, []string{"b x"}, s.refusedBy())
		return s
	}
	t.Run("which its deletion does", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.decideWithheld(activities.Approved, "b", 1)
		require.Equal(t, 1, s.runPasses()["b"].Deleted)
		require.Empty(t, s.refusedBy())
		require.Equal(t, []string{"a"}, s.namedShards())

		s.upstream["b"] = nil
		s.runPasses()
		require.Equal(t, []string{"b x"}, s.refusedBy(), "named again, it is listed from the beginning")
	})
	t.Run("and takes them when it comes back and they are valid", func(t *testing.T) {
		t.Parallel()
		s := gone(t)
		s.handler.encode = func([]byte) error { return errors.New("still refused") }
		s.upstream["b"] = nil
		s.runPasses()
		require.Equal(t, []string{"b x"}, s.refusedBy(), "its listing goes on from its cursor, and does not name x")
		s.handler.encode = nil
		s.handler.encoded = func(o deltatype.ObjectInformParams) deltatype.ObjectInformParams { return inShard("b", o.ResourceID) }
		s.runPasses()
		require.Empty(t, s.refusedBy())
		require.Equal(t, []string{"b/0", "x"}, s.liveIDs("b"))
	})
}
