package delta_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// stuckRegions hangs halfway through the listing of "eu". It is the controller of a child process, which is killed then.
type stuckRegions struct{ *regions[regional] }

func (r *stuckRegions) Inform(ctx context.Context, o *delta.InformOptions) (<-chan regional, error) {
	if o.Shard != "eu" {
		return r.regions.Inform(ctx, o)
	}
	all := make(chan regional)
	go func() {
		names := r.all["eu"]
		for _, name := range names[:len(names)/2] {
			all <- inRegion("eu", name)
		}
		fmt.Println("half listed")
	}()
	return all, nil
}

type informEnd struct {
	run *delta.InformRun
	err error
}

// runInform runs the informer in the background.
func runInform(c *delta.Client, params delta.ScheduleInformParams, report func(delta.InformProgress)) <-chan informEnd {
	ended := make(chan informEnd, 1)
	go func() {
		run, err := c.WatchInform(context.Background(), params, nil, report)
		ended <- informEnd{run, err}
	}()
	return ended
}

func quietly(delta.InformProgress) {}

// Another worker repeats the pass of a shard. Objects that the first one had not listed are neither lost nor deleted, and the other shards are not
// listed again.
func TestThePassOfAShardWhoseWorkerIsKilledIsMadeAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(inRegion, map[string][]string{"eu": names("e", 4), "us": names("u", 3)})
	params := delta.ScheduleInformParams{ResourceKind: "regional", RunForeground: true}
	c := h.client(h.config(addTo[regional](outside)))
	require.NoError(t, c.Start(context.Background()))
	first, err := c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	require.Equal(t, 7, first.Listed)
	require.NoError(t, c.Stop(context.Background()))

	kill := h.startChild("shards", "started")
	observer := h.client(h.config())
	ended := runInform(observer, params, quietly)
	passes := func(shard string) []delta.InformPass {
		t.Helper()
		all, err := observer.InformPasses(t.Context(), "regional", shard, 0)
		require.NoError(t, err)
		return all
	}
	until(t, func() bool { return len(passes("us")) == 2 && passes("us")[0].EndedAt != nil && len(passes("eu")) == 2 })
	// The pass's row ends before Temporal knows: if a worker dies in between, the pass is repeated.
	us := passes("us")[0]
	require.NoError(t, h.Temporal.GetWorkflow(t.Context(), us.WorkflowID, us.RunID).Get(t.Context(), nil))
	kill()
	h.awaitEnd()
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 7}, h.countStates("regional"), "half a listing deletes nothing")

	outside.change(func() { outside.all["eu"], outside.given = append(names("e", 3), "new"), nil })
	failures := make(chan delta.Failure, 100)
	config := h.config(addTo[regional](outside))
	config.ErrorHandler = func(_ context.Context, f delta.Failure) { failures <- f }
	h.start(config)
	end := <-ended
	require.NoError(t, end.err)
	require.Equal(t, 7, end.run.Listed, "four and three")
	require.Equal(t, 1, end.run.Deleted)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 7, "deleted": 1}, h.countStates("regional"))
	require.Equal(t, deltatype.ResourceStateDeleted, h.row("regional", "eu/e03").State)
	require.Equal(t, deltatype.ResourceStateSynced, h.row("regional", "eu/new").State)
	require.Equal(t, []string{"eu"}, outside.listedRegions(), "the other shard has ended before")
	eu := passes("eu")
	require.Len(t, eu, 3)
	require.Equal(t, "its worker was lost", eu[1].Error)
	require.Empty(t, eu[0].Error)
	require.Equal(t, eu[1].RunID, eu[0].RunID, "another attempt of the same run")
	lost := receive(t, failures)
	require.Equal(t, delta.OperationList, lost.Operation)
	require.Equal(t, "eu", lost.Shard)
	require.Equal(t, eu[1].RunID, lost.RunID)
	require.ErrorContains(t, lost.Err, "its worker was lost")
}

// regionalOften has a schedule of a few seconds.
type regionalOften struct{ regional }

func (r regionalOften) Kind() string { return "regional-often" }
func (r regionalOften) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 8, InformInterval: 2 * time.Second, CompleteListing: true}
}

// While the pass of a shard hangs, later runs skip the shard and list the others.
func TestAShardThatHangsDelaysNoOtherAndNoRun(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(func(region, name string) regionalOften { return regionalOften{regional{region, name}} },
		map[string][]string{"a": {"1"}, "b": {"1"}, "c": {"1"}})
	release := make(chan struct{})
	outside.hangs["b"] = release
	config := h.config(addTo[regionalOften](outside))
	config.ControllerInformTimeout = -1 // a hanging pass hangs until the test releases it
	c := h.start(config)
	// The runs that have listed b. A hanging pass may be retried by its own run, because a stalled machine looks like a lost one.
	runs := func() map[string]bool {
		passes, err := c.InformPasses(t.Context(), "regional-often", "b", 0)
		require.NoError(t, err)
		all := map[string]bool{}
		for _, p := range passes {
			all[p.RunID] = true
		}
		return all
	}
	until(t, func() bool {
		return len(outside.listed("b")) > 0 && len(outside.listed("a")) >= 4 && len(outside.listed("c")) >= 4
	})
	require.Len(t, runs(), 1, "no run lists the shard twice at once")
	require.Nil(t, shardsByName(t, c, "regional-often")["b"].LastSuccess)
	require.NotNil(t, shardsByName(t, c, "regional-often")["a"].LastSuccess)
	close(release)
	h.eventually("regional-often", "b/1", synced(1))
	until(t, func() bool { return len(runs()) >= 2 })
}

// latestReport returns a channel with the latest report of a run.
func latestReport() (reports chan delta.InformProgress, report func(delta.InformProgress)) {
	reports = make(chan delta.InformProgress, 1)
	return reports, func(p delta.InformProgress) {
		select {
		case <-reports:
		default:
		}
		reports <- p
	}
}

// A report of a run is the sum of its shards, ended and running ones.
func TestWatchInformAddsUpTheShardsOfARun(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(inRegion, map[string][]string{"a": names("a", 5), "b": names("b", 3), "c": names("c", 2)})
	release := make(chan struct{})
	outside.hangs["b"] = release
	c := h.start(h.config(addTo[regional](outside)))
	params := delta.ScheduleInformParams{ResourceKind: "regional"}
	reports, report := latestReport()
	ended := runInform(c, params, report)
	// isRepeated reports whether a pass stood still and was repeated. Its second try finds objects unchanged that the first has informed.
	isRepeated := func() bool { return len(outside.listedRegions()) > 3 }
	until(t, func() bool {
		p := <-reports
		require.LessOrEqual(t, p.Listed, 7)
		require.LessOrEqual(t, p.Scheduled, 7)
		return p.Listed == 7 && (p.Scheduled == 7 || isRepeated())
	})
	close(release)
	end := <-ended
	require.NoError(t, end.err)
	require.Equal(t, 10, end.run.Listed)
	if !isRepeated() {
		require.Equal(t, 10, end.run.Scheduled)
	}

	// Counts are of this run alone, and the failure is that of one of its shards.
	release = make(chan struct{})
	outside.change(func() { outside.hangs["b"], outside.failed["c"] = release, errors.New("c is down") })
	reports, report = latestReport()
	ended = runInform(c, params, report)
	until(t, func() bool {
		p := <-reports
		require.LessOrEqual(t, p.Listed, 5)
		return p.Listed == 5 && p.Scheduled == 0 && p.LastFailure != ""
	})
	close(release)
	end = <-ended
	require.ErrorContains(t, end.err, "c is down")
	require.Equal(t, 8, end.run.Listed)
}

func TestAFilterChoosesShards(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	for i, shard := range []string{"eu", "eu", "us", ""} {
		_, err := c.Inform(t.Context(), keyed{Key: fmt.Sprint(i), shard: shard}, nil)
		require.NoError(t, err)
	}
	for want, filter := range map[int]delta.Filter{
		2: {Shards: []string{"eu"}}, 3: {Shards: []string{"eu", "us"}}, 1: {Shards: []string{"eu"}, ObjectIDs: []string{"1"}}, 0: {Shards: []string{"mars"}},
	} {
		rows, err := c.List(t.Context(), filter, delta.Page{})
		require.NoError(t, err)
		require.Len(t, rows, want)
	}
	_, err := c.List(t.Context(), delta.Filter{Shards: []string{""}}, delta.Page{})
	require.ErrorContains(t, err, `Shards "": must not be empty`)
	_, err = c.Count(t.Context(), delta.Filter{Shards: []string{"eu"}})
	require.ErrorContains(t, err, "Shards")
	_, err = c.DeleteAll(t.Context(), delta.Filter{All: true, Shards: []string{"eu"}})
	require.ErrorContains(t, err, "All true: must not be set together")
	n, err := c.DeleteAll(t.Context(), delta.Filter{Shards: []string{"us"}})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, map[deltatype.ResourceState]int{"scheduled": 3, "deleted": 1}, h.countStates("keyed"))
}
