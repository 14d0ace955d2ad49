package delta_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// regional is an object in a region of an upstream.
type regional struct {
	Region string `json:"region"`
	Name   string `json:"name"`
}

func (r regional) ID() string    { return r.Region + "/" + r.Name }
func (r regional) Kind() string  { return "regional" }
func (r regional) Shard() string { return r.Region }
func (r regional) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 8, InformInterval: -1, CompleteListing: true, MaxDeleted: 1, MaxDeletedShare: 0.5}
}

// regionalHourly is regional with a schedule.
type regionalHourly struct{ regional }

func (r regionalHourly) Kind() string { return "regional-hourly" }
func (r regionalHourly) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 8, InformInterval: time.Hour, CompleteListing: true}
}

// regions is an upstream with regions, and the controller that lists it.
type regions[T delta.Object] struct {
	delta.WorkerDefaults[T]
	delta.InformerDefaults[T]
	of func(region, name string) T

	mu     sync.Mutex
	all    map[string][]string
	naming error
	failed map[string]error
	// hangs are regions whose listing ends when their channel is closed.
	hangs map[string]chan struct{}
	given []string
}

func newRegions[T delta.Object](of func(region, name string) T, all map[string][]string) *regions[T] {
	return &regions[T]{of: of, all: all, failed: map[string]error{}, hangs: map[string]chan struct{}{}}
}

func (r *regions[T]) change(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *regions[T]) Work(context.Context, *delta.Resource[T]) error { return nil }

func (r *regions[T]) Shards(context.Context) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.all)), r.naming
}

func (r *regions[T]) Inform(ctx context.Context, o *delta.InformOptions) (<-chan T, error) {
	r.mu.Lock()
	hangs := r.hangs[o.Shard]
	r.given = append(r.given, o.Shard)
	names, err := r.all[o.Shard], r.failed[o.Shard]
	r.mu.Unlock()
	if hangs != nil {
		select {
		case <-hangs:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	var objects []T
	for _, name := range names {
		objects = append(objects, r.of(o.Shard, name))
	}
	return sendAll(ctx, objects...), nil
}

func inRegion(region, name string) regional { return regional{region, name} }

func hourlyIn(region, name string) regionalHourly { return regionalHourly{regional{region, name}} }

// shardsByName returns the shards of a kind, by name.
func shardsByName(t *testing.T, c *delta.Client, kind string) map[string]delta.ShardStatus {
	t.Helper()
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	all := map[string]delta.ShardStatus{}
	for _, k := range kinds {
		if k.Kind == kind {
			for _, s := range k.Shards {
				all[s.Shard] = s
			}
		}
	}
	return all
}

func TestARunListsEachShardByItself(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(inRegion, map[string][]string{"eu": names("e", 4), "us": names("u", 4), "asia pacific": names("a", 4)})
	c := h.start(h.config(addTo[regional](outside)))
	params := delta.ScheduleInformParams{ResourceKind: "regional", RunForeground: true}
	run, err := c.RunInform(t.Context(), params, nil)
	require.NoError(t, err)
	require.Equal(t, 12, run.Listed)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 12}, h.countStates("regional"), "in the foreground all have settled")
	require.ElementsMatch(t, []string{"eu", "us", "asia pacific"}, outside.listedRegions())
	require.Equal(t, "asia pacific", h.row("regional", "asia pacific/a00").Shard)

	// Each shard is a child workflow in the history.
	passes, err := c.InformPasses(t.Context(), "regional", "asia pacific", 0)
	require.NoError(t, err)
	require.Len(t, passes, 1)
	require.Equal(t, run.WorkflowID+"/shard:asia%20pacific", passes[0].WorkflowID)
	require.EqualValues(t, 4, passes[0].New)
	all, err := c.InformPasses(t.Context(), "regional", "", 0)
	require.NoError(t, err)
	require.Len(t, all, 3)

	// The error names a failed shard, and the others are unaffected. One shard can be listed alone.
	outside.change(func() {
		outside.all = map[string][]string{"eu": names("e", 3), "us": names("u", 3), "asia pacific": names("a", 3)}
		outside.failed["eu"] = errors.New("eu is down")
	})
	before := shardsByName(t, c, "regional")
	_, err = c.RunInform(t.Context(), params, nil)
	require.ErrorContains(t, err, `1 of 3 shards failed: "eu": informing kind regional`)
	require.ErrorContains(t, err, "eu is down")
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 10, "deleted": 2}, h.countStates("regional"))
	after := shardsByName(t, c, "regional")
	require.Equal(t, before["eu"].LastInformTime, after["eu"].LastInformTime)
	require.True(t, after["us"].LastInformTime.After(*before["us"].LastInformTime))
	require.Contains(t, after["eu"].Error, "eu is down")
	require.Empty(t, after["us"].Error)
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.Equal(t, after["eu"].LastInformTime, kinds[0].LastInformTime, "the kind has the cursor of its slowest shard")

	outside.change(func() { outside.failed, outside.given = map[string]error{}, nil })
	run, err = c.RunInform(t.Context(), params, &delta.InformOptions{Shard: "eu"})
	require.NoError(t, err)
	require.Equal(t, 1, run.Deleted)
	require.Equal(t, []string{"eu"}, outside.listedRegions())
	_, err = c.RunInform(t.Context(), params, &delta.InformOptions{Shard: "mars"})
	require.ErrorContains(t, err, `kind regional has no shard "mars"`)

	outside.change(func() { outside.naming = errors.New("503") })
	h.failsOnce(c, params)
	require.Equal(t, after["us"].LastInformTime, shardsByName(t, c, "regional")["us"].LastInformTime)
}

// A scheduled run starts the shards one after another.
func TestScheduledShardsAreSpreadInTime(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(hourlyIn, map[string][]string{"a": {"1"}, "b": {"1"}})
	release := make(chan struct{})
	outside.hangs["a"] = release
	outside.failed["b"] = errors.New("b is down")
	config := h.config(addTo[regionalHourly](outside))
	config.ControllerInformTimeout = -1 // a hanging pass hangs until the test releases it
	c := h.start(config)
	until(t, func() bool { return len(outside.listed("a")) > 0 })
	run := h.scheduledRun("inform:regional-hourly")
	h.awaitEvent(run, func(e *historypb.HistoryEvent) bool { return e.GetEventType() == enumspb.EVENT_TYPE_TIMER_STARTED })
	require.Equal(t, []time.Duration{time.Minute}, h.timerDurations(run), "three quarters of the interval, divided, and a minute at most")
	require.Empty(t, outside.listed("b"), "it is not its turn")
	require.Equal(t, enumspb.PARENT_CLOSE_POLICY_ABANDON, h.childWorkflows(run)[0].GetParentClosePolicy())
	require.Equal(t, h.Prefix+"/inform:regional-hourly/shard:a", h.childWorkflows(run)[0].GetWorkflowId())
	require.Empty(t, shardsByName(t, c, "regional-hourly")["a"].Error)

	close(release)
	h.eventually("regional-hourly", "a/1", synced(1))
	h.terminateWorkflows(run)
}

func TestAShardThatIsPausedIsLeftOutByTheSchedule(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(hourlyIn, map[string][]string{"a": {"1"}, "b": {"1"}})
	observer := h.client(h.config())
	require.ErrorIs(t, observer.PauseShard(t.Context(), "regional-hourly", "a"), delta.ErrNotFound)
	require.ErrorContains(t, observer.PauseShard(t.Context(), "regional-hourly", ""), `shard "": must not be empty`)
	h.exec("INSERT INTO delta_shard (kind, shard) VALUES ('regional-hourly', 'a'), ('regional-hourly', 'b')")
	require.NoError(t, observer.PauseShard(t.Context(), "regional-hourly", "a"))
	c := h.start(h.config(addTo[regionalHourly](outside)))
	h.eventually("regional-hourly", "b/1", synced(1))
	require.Empty(t, outside.listed("a"))
	require.True(t, shardsByName(t, c, "regional-hourly")["a"].Paused)
	_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "regional-hourly"}, &delta.InformOptions{Shard: "a"})
	require.NoError(t, err)
	require.Len(t, outside.listed("a"), 1, "the requested shard is listed")
	require.NoError(t, observer.ResumeShard(t.Context(), "regional-hourly", "a"))
	require.False(t, shardsByName(t, c, "regional-hourly")["a"].Paused)
}

func TestAShardThatIsGoneIsDecidedByAPerson(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var log logs
	outside := newRegions(inRegion, map[string][]string{"eu": names("e", 3), "us": names("u", 3)})
	config := h.config(addTo[regional](outside))
	config.Logger = log.logger()
	c := h.start(config)
	params := delta.ScheduleInformParams{ResourceKind: "regional", RunForeground: true}
	run := func() *delta.InformRun {
		t.Helper()
		run, err := c.RunInform(t.Context(), params, nil)
		require.NoError(t, err)
		return run
	}
	run()
	outside.change(func() { outside.all = map[string][]string{"us": names("u", 3)} })
	require.EqualValues(t, 3, run().Withheld)
	require.True(t, log.has("the controller no longer names a shard that has resources: nothing is marked deleted") && log.has("shard=eu"))
	eu := shardsByName(t, c, "regional")["eu"]
	require.NotNil(t, eu.GoneSince)
	require.EqualValues(t, 3, eu.Withheld.Missing)
	withheld, err := c.Withheld(t.Context())
	require.NoError(t, err)
	require.Len(t, withheld, 1)
	require.Equal(t, "eu", withheld[0].Shard)

	_, err = c.ApproveWithheld(t.Context(), "regional", "", 3)
	require.ErrorIs(t, err, delta.ErrNotWithheld)
	_, err = c.ApproveWithheld(t.Context(), "regional", "eu", 3)
	require.NoError(t, err)
	require.Equal(t, 3, run().Deleted)
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 3, "deleted": 3}, h.countStates("regional"))
	require.Equal(t, []string{"us"}, slices.Collect(maps.Keys(shardsByName(t, c, "regional"))))

	outside.change(func() { outside.all["eu"] = names("e", 3) })
	run()
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 6}, h.countStates("regional"), "a relisted object is live again")
	outside.change(func() { outside.all = map[string][]string{} })
	require.EqualValues(t, 6, run().Withheld, "naming no shard does not remove all shards")
	require.True(t, log.has("the controller names no shards"))
}

func TestAnObjectIsListedByItsOwnShardOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(func(region, name string) regional {
		said, own, other := strings.Cut(name, ":")
		if !other {
			return regional{region, name}
		}
		return regional{said, own}
	}, map[string][]string{"eu": {"1"}, "us": {"1", "eu:1", ":none"}})
	c := h.start(h.config(addTo[regional](outside)))
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "regional"}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, run.Refused)
	require.Equal(t, 2, run.Scheduled)
	refused, err := c.Refused(t.Context(), "regional")
	require.NoError(t, err)
	require.Len(t, refused, 2)
	require.Equal(t, "us", refused[1].Shard)
	require.Equal(t, "eu/1", refused[1].ObjectID)
	require.Contains(t, refused[1].Rule, `Shard "eu": must be that of the listing that names the object, "us"`)
}

// handlerOf returns a controller as the activities have it.
func handlerOf(h *harness, c delta.Controller[regional]) activities.Handler {
	return h.client(h.config(addTo[regional](c))).ActivitiesOf("", "regional").Handler
}

// scheduledRun returns the workflow of the latest run of a schedule.
func (h *harness) scheduledRun(schedule string) (workflowID string) {
	h.t.Helper()
	until(h.t, func() bool {
		found, err := h.Temporal.ScheduleClient().GetHandle(context.Background(), h.Prefix+"/"+schedule).Describe(context.Background())
		require.NoError(h.t, err)
		all := found.Info.RecentActions
		if len(all) > 0 {
			workflowID = all[len(all)-1].StartWorkflowResult.WorkflowID
		}
		return len(all) > 0
	})
	return workflowID
}

// childWorkflows returns the child workflows that a workflow was to start.
func (h *harness) childWorkflows(workflowID string) (all []*historypb.StartChildWorkflowExecutionInitiatedEventAttributes) {
	h.t.Helper()
	for _, event := range h.history(workflowID) {
		if child := event.GetStartChildWorkflowExecutionInitiatedEventAttributes(); child != nil {
			all = append(all, child)
		}
	}
	return all
}

// listedRegions returns the listed regions, in order.
func (r *regions[T]) listedRegions() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.given)
}

func (r *regions[T]) listed(region string) (times []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, given := range r.given {
		if given == region {
			times = append(times, given)
		}
	}
	return times
}
