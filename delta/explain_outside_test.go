package delta_test

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"google.golang.org/grpc/codes"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// These scenarios are of faults outside the resource: in Temporal, in workers, and in listings.

func explainNoTemporal(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, nil)
	x.exec(`insert into delta_controller (name, inform_interval) values ('explained', '-1 second')`)
	x.inform("new")
	// It accepts connections, and never answers.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	for name, address := range map[string]string{"silent": listener.Addr().String(), "nobody there": "127.0.0.1:1"} {
		silent, err := client.NewLazyClient(client.Options{HostPort: address})
		require.NoError(t, err)
		config := x.config()
		config.Temporal = silent
		away := &explaining[single]{harness: x.harness, c: x.client(config), seen: seen}
		e := away.explain("explained", "new")
		require.Error(t, e.TemporalError, name)
		require.Equal(t, delta.ReasonTemporalUnreachable, e.Reasons[0].Code, name)
		seen.add(delta.ReasonTemporalUnreachable)
		require.Contains(t, e.Reasons[0].Remedy, "TEMPORAL_ADDRESS")

		// The explanation has everything else, and does not wait for Temporal where it is not needed.
		x.exec(`update delta_controller set paused = true`)
		e = away.explain("explained", "new")
		require.Equal(t, delta.ReasonKindPaused, e.Reasons[0].Code)
		x.exec(`update delta_controller set paused = false`)
		x.exec(`insert into delta_resource (kind, object_id, namespace, max_attempts, hash, object, state, synced_generation, synced_at)
			values ('explained', $1, 'default', 10, '', '{}', 'synced', 1, now())`, name)
		e = away.explain("explained", name)
		require.NoError(t, e.TemporalError)
		require.True(t, e.IsSynced())
		silent.Close()
	}
}

func explainNotStarted[M batchSized](t *testing.T, seen *reasonsSeen) {
	starts := &refusedStarts{}
	x := newExplaining[M](t, seen, nil)
	config := x.config(with(&controller[explained[M]]{}))
	config.Temporal = x.dialRefusingRequests(func(_ string, request any) error {
		return starts.refuse(strings.Contains(startedWorkflow(request), "/explained"), codes.InvalidArgument)
	})
	x.c = x.client(config)
	x.startClient()
	x.inform("new")
	until(t, func() bool { return starts.count() > 3 }, "then the retry waits for seconds") // so that the dispatcher has read the row before the next retry
	reason := x.awaitDeciding("new", delta.ReasonNotStarted)
	require.Contains(t, reason.Text, "cannot be started: not this one")
	require.NotNil(t, reason.Until)
}

// A user's worker polls the task queue without Delta's workflows.
func explainFailingWorkflow(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, func(c *delta.Config) { c.TaskQueue = t.Name() })
	w := sdkworker.New(x.Temporal, t.Name(), ownWorker())
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	x.startClient()
	x.inform("new")
	reason := x.awaitDeciding("new", delta.ReasonWorkflowFailing)
	require.Contains(t, reason.Text, "tasks of its workflow "+x.Prefix+"/explained/new fail or time out")
}

// A user's worker has Delta's workflows, but its client is not started, so no dispatcher runs.
func explainDue(t *testing.T, seen *reasonsSeen) {
	x := newExplaining[single](t, seen, func(c *delta.Config) { c.TaskQueue = t.Name() })
	w := sdkworker.New(x.Temporal, t.Name(), ownWorker())
	require.NoError(t, x.c.Register(w))
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	x.inform("new")
	reason := x.awaitDeciding("new", delta.ReasonDue)
	require.Contains(t, reason.Text, "a dispatcher takes it within seconds")
	require.Equal(t, x.row("explained", "new").DueAt, reason.Since)

	// A client without the task queue in its Config reads it from the database.
	other := &explaining[single]{harness: x.harness, c: x.client(x.config()), seen: seen}
	other.awaitDeciding("new", delta.ReasonDue)
	status, err := other.c.TemporalStatus(t.Context(), "explained")
	require.NoError(t, err)
	require.Equal(t, t.Name(), status.Kinds["explained"].TaskQueue)
	require.NotEmpty(t, status.Kinds["explained"].Workers)
	x.exec(`update delta_resource set due_at = now() - interval '5 minutes'`)
	until(t, func() bool { return strings.Contains(x.awaitDeciding("new", delta.ReasonDue).Text, "it is late") })
}

// ruled is a kind of which one object is invalid.
type ruled struct {
	mirror
	IsBad bool `json:"-"`
}

func (ruled) Kind() string { return "ruled" }
func (o ruled) InformOpts() delta.InformOpts {
	if o.IsBad {
		return delta.InformOpts{Namespace: "no name!"}
	}
	return delta.InformOpts{}
}

func (o ruled) Compare(other delta.Object) (int, bool) {
	r, ok := other.(ruled)
	return o.Version - r.Version, ok
}

func explainListings(t *testing.T, seen *reasonsSeen) {
	h := newHarness(t)
	outside := &upstream[ruled]{all: []ruled{{mirror: mirror{Name: "old", Version: 1}}, {mirror: mirror{Name: "bad"}, IsBad: true}}}
	c := h.client(h.config(with(&controller[ruled]{inform: outside.inform})))
	x := &explaining[single]{harness: h, c: c, seen: seen}
	_, err := c.InformMany(t.Context(), []delta.Object{ruled{mirror: mirror{Name: "old", Version: 2}}, ruled{mirror: mirror{Name: "bad"}}}, nil)
	require.NoError(t, err)
	for n := range activities.MinStalePasses {
		_, err := h.runPass(c, "ruled", activities.InformInput{Pass: uuidOf(n)})
		require.NoError(t, err)
	}
	stale := x.awaitReason("ruled", "old", delta.ReasonStale)
	require.Contains(t, stale.Text, "the latest 3 passes listed an older version")
	require.NotNil(t, stale.Since)
	refused := x.awaitReason("ruled", "bad", delta.ReasonRefused).Text
	require.Contains(t, refused, `namespace "no name!"`)
	require.NotContains(t, refused, "nor kept")
	h.exec(`update delta_refused set object = null`) // as if it were too large to keep
	require.Contains(t, x.awaitReason("ruled", "bad", delta.ReasonRefused).Text, "nor kept, so it has to be named again")

	h.exec(`update delta_resource set state = 'synced', synced_generation = 1`)
	outside.set(ruled{mirror: mirror{Name: "another"}})
	for n := range 5 {
		_, err := c.Inform(t.Context(), ruled{mirror: mirror{Name: "m" + string(rune('0'+n))}}, nil)
		require.NoError(t, err)
	}
	h.exec(`update delta_resource set state = 'synced', synced_generation = 1`)
	progress, err := h.runPass(c, "ruled", activities.InformInput{Pass: uuidOf(9)})
	require.NoError(t, err)
	require.Positive(t, progress.Withheld)
	require.Contains(t, x.awaitReason("ruled", "m0", delta.ReasonWithheld).Remedy, "delta informs approve ruled")
	_, err = c.DismissWithheld(t.Context(), "ruled", "", progress.Withheld)
	require.NoError(t, err)
	for _, reason := range x.explain("ruled", "m0").Reasons {
		require.NotEqual(t, delta.ReasonWithheld, reason.Code, "it was decided")
	}
}

func uuidOf(n int) string { return "00000000-0000-0000-0000-00000000000" + string(rune('0'+n)) }

func explainShards(t *testing.T, seen *reasonsSeen) {
	h := newHarness(t)
	outside := newRegions(inRegion, map[string][]string{"eu": names("e", 2), "us": names("u", 2)})
	c := h.client(h.config(addTo[regional](outside)))
	x := &explaining[single]{harness: h, c: c, seen: seen}
	_, err := c.InformMany(t.Context(), []delta.Object{inRegion("eu", "e00"), inRegion("us", "u00")}, nil)
	require.NoError(t, err)
	h.exec(`update delta_resource set state = 'synced', synced_generation = 1`)
	outside.change(func() { delete(outside.all, "us") })
	progress, err := h.runPass(c, "regional", activities.InformInput{})
	require.NoError(t, err)
	require.Len(t, progress.Shards.Passes, 2)
	gone := x.awaitReason("regional", "us/u00", delta.ReasonShardGone)
	require.NotNil(t, gone.Since)
	require.Empty(t, gone.Remedy, "nothing can be decided yet")
	_, err = h.runPass(c, "regional", activities.InformInput{Pass: uuidOf(1), Named: true, Gone: true, Options: deltatype.InformOptions{Shard: "us"}})
	require.NoError(t, err)
	require.Contains(t, x.awaitReason("regional", "us/u00", delta.ReasonShardGone).Remedy, "delta informs approve regional --shard us")
	require.Len(t, x.explain("regional", "eu/e00").Reasons, 1)
}
