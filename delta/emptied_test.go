package delta_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// emptied is a kind with complete listings and the default bounds of deletions.
type emptied struct{ mirror }

func (emptied) Kind() string { return "emptied" }
func (emptied) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 10, InformInterval: -1, CompleteListing: true}
}

// unguarded is a kind without bounds of deletions.
type unguarded struct{ mirror }

func (unguarded) Kind() string { return "unguarded" }
func (unguarded) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 10, InformInterval: -1, CompleteListing: true, MaxDeletedShare: 1}
}

// emptiedRegion is a kind with shards and the default bounds of deletions.
type emptiedRegion struct{ regional }

func (emptiedRegion) Kind() string                   { return "emptied-region" }
func (emptiedRegion) Settings() delta.ObjectSettings { return emptied{}.Settings() }

func emptiedIn(region, name string) emptiedRegion { return emptiedRegion{regional{region, name}} }

// MaxDeleted would let a pass delete ten resources, but an upstream that lists nothing is more often broken than empty.
func TestAnEmptyListingIsWithheldByDefault(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var log logs
	outside := &upstream[emptied]{}
	lists := func(n int) {
		var all []emptied
		for _, m := range newMirrors(n) {
			all = append(all, emptied{m})
		}
		outside.set(all...)
	}
	config := h.config(with(&controller[emptied]{inform: outside.inform}))
	config.Logger = log.logger()
	c := h.start(config)
	run := func() *delta.InformRun {
		t.Helper()
		run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "emptied", RunForeground: true}, nil)
		require.NoError(t, err)
		return run
	}
	lists(10)
	run()
	lists(0)
	emptiedRun := run()
	require.Zero(t, emptiedRun.Deleted)
	require.EqualValues(t, 10, emptiedRun.Withheld)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 10}, h.countStates("emptied"))
	require.True(t, log.has("a listing names nothing at all: nothing is marked deleted until it is approved"))
	withheld, err := c.Withheld(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a listing names nothing at all", withheld[0].Reason)
	why, err := c.Explain(t.Context(), "emptied", "m000")
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(why.Reasons), "the listings leave out 10 of 10 resources, of which it may be one (a listing names nothing at all)")

	// A listing with an object may delete as many as usual, and one resource may be the last.
	lists(1)
	require.Equal(t, 9, run().Deleted)
	lists(0)
	require.Equal(t, 1, run().Deleted)

	// A person can approve the deletion of everything.
	lists(2)
	run()
	lists(0)
	require.EqualValues(t, 2, run().Withheld)
	_, err = c.ApproveWithheld(t.Context(), "emptied", "", 2)
	require.NoError(t, err)
	require.Equal(t, 2, run().Deleted)
}

func TestAListingThatNamesNothingDeletesNoShardByItself(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(emptiedIn, map[string][]string{})
	for i := range 10 {
		outside.all[fmt.Sprintf("s%d", i)] = names("o", 10)
	}
	c := h.start(h.config(addTo[emptiedRegion](outside)))
	run := func() *delta.InformRun {
		t.Helper()
		run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "emptied-region", RunForeground: true}, nil)
		require.NoError(t, err)
		return run
	}
	run()
	outside.change(func() {
		for shard := range outside.all {
			outside.all[shard] = nil
		}
	})
	emptiedRun := run()
	require.Zero(t, emptiedRun.Deleted)
	require.EqualValues(t, 100, emptiedRun.Withheld)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 100}, h.countStates("emptied-region"))
	for name, shard := range shardsByName(t, c, "emptied-region") {
		require.EqualValues(t, 10, shard.Withheld.Missing, name)
		require.Equal(t, "a listing names nothing at all", shard.Withheld.Reason, name)
	}
}

func TestAnEmptyListingDeletesAllIfMaxDeletedAllowsIt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[unguarded]{}
	for _, m := range newMirrors(20) {
		outside.all = append(outside.all, unguarded{m})
	}
	c := h.start(h.config(with(&controller[unguarded]{inform: outside.inform})))
	params := delta.ScheduleInformParams{ResourceKind: "unguarded", RunForeground: true}
	_, err := c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	outside.set()
	run, err := c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	require.Equal(t, 20, run.Deleted)
}
