package delta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// deployment is the worker deployment of a test, whose clients are builds of it.
type deployment struct {
	*harness
	name string
}

func deploymentOf(h *harness) deployment {
	return deployment{h, strings.NewReplacer(".", "-", ":", "-").Replace(h.Prefix)}
}

// config returns the configuration of a client of a build.
func (d deployment) config(build string, add ...func(*delta.Controllers)) *delta.Config {
	config := d.harness.config(add...)
	config.ResourceWorkTimeout = -1 // Work may be held for as long as a busy machine takes to start another client
	config.WorkerVersion = delta.WorkerVersion{Deployment: d.name, BuildID: build}
	return config
}

// version returns the version of a build; that of workers without one for an empty build.
func (d deployment) version(build string) delta.WorkerVersion {
	if build == "" {
		return delta.WorkerVersion{}
	}
	return delta.WorkerVersion{Deployment: d.name, BuildID: build}
}

// setCurrent makes a build current, as an operator does, and waits until the task queues of a kind have it.
func (d deployment) setCurrent(kind, build string) {
	d.t.Helper()
	d.route(func(handle client.WorkerDeploymentHandle) error {
		_, err := handle.SetCurrentVersion(d.t.Context(), client.WorkerDeploymentSetCurrentVersionOptions{BuildID: build})
		return err
	})
	d.awaitRouting(kind, func(r delta.QueueRouting) bool { return r.Current == d.version(build) })
}

// ramp routes a share of the workflows to a build, by the command of the guide.
func (d deployment) ramp(kind, build, percent string) {
	d.t.Helper()
	until(d.t, func() bool {
		_, err := d.runTemporalCommand("worker", "deployment", "set-ramping-version", "--deployment-name", d.name, "--build-id", build, "--percentage", percent, "--yes")
		return err == nil
	})
	d.awaitRouting(kind, func(r delta.QueueRouting) bool {
		return r.Ramping == d.version(build) && fmt.Sprint(r.RampPercent) == percent
	})
}

// route repeats a change of the routing until Temporal knows the build, which its first polls tell.
func (d deployment) route(change func(client.WorkerDeploymentHandle) error) {
	d.t.Helper()
	var err error
	until(d.t, func() bool {
		err = change(d.Temporal.WorkerDeploymentClient().GetHandle(d.name))
		return err == nil
	}, "%s", shown[error]{&err})
}

// awaitRouting waits until the task queues of a kind have a routing. Temporal tells them one after the other, those of activities too.
func (d deployment) awaitRouting(kind string, is func(delta.QueueRouting) bool) {
	d.t.Helper()
	c := d.client(d.harness.config())
	until(d.t, func() bool {
		status, err := c.TemporalStatus(d.t.Context(), kind)
		require.NoError(d.t, err)
		there := status.Kinds[kind]
		for _, queue := range []string{there.TaskQueue, there.InformTaskQueue} {
			found, err := d.Temporal.DescribeTaskQueue(d.t.Context(), queue, enumspb.TASK_QUEUE_TYPE_ACTIVITY)
			require.NoError(d.t, err)
			info := found.GetVersioningInfo()
			current, ramping := info.GetCurrentDeploymentVersion(), info.GetRampingDeploymentVersion()
			if !is(delta.QueueRouting{
				Current:     delta.WorkerVersion{Deployment: current.GetDeploymentName(), BuildID: current.GetBuildId()},
				Ramping:     delta.WorkerVersion{Deployment: ramping.GetDeploymentName(), BuildID: ramping.GetBuildId()},
				RampPercent: info.GetRampingVersionPercentage(),
			}) {
				return false
			}
		}
		return is(there.Routing) && is(there.InformRouting)
	})
}

// buildCalls counts the calls of Work, by object and generation, and has the builds that were called.
type buildCalls struct {
	mu     sync.Mutex
	builds map[string][]string
}

func (b *buildCalls) note(build string, j job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builds == nil {
		b.builds = map[string][]string{}
	}
	key := fmt.Sprintf("%s@%d", j.Object.Name, j.Generation)
	b.builds[key] = append(b.builds[key], build)
}

// of returns the builds that were called for a generation of an object.
func (b *buildCalls) of(name string, generation int64) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.builds[fmt.Sprintf("%s@%d", name, generation)])
}

// Two builds run, and the current version moves while resources rest and while some are in Work: each goes on with the version that is current, each
// generation is worked once, and the same holds for the way back.
func TestResourcesGoOnWithTheCurrentVersion(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		d, calls, open := deploymentOf(g.harness), &buildCalls{}, make(chan struct{})
		work := func(build string) func(context.Context, job) error {
			return func(ctx context.Context, j job) error {
				calls.note(build, j)
				if !strings.HasPrefix(j.Object.Name, "held") || j.Generation > 1 {
					return nil
				}
				select {
				case <-open:
				case <-ctx.Done():
				}
				return ctx.Err()
			}
		}
		a := g.start(withLongClaims(d.config("a", g.controller(work("a"))), g.kind))
		d.setCurrent(g.kind, "a")
		resting, held := names("rests", 8), names("held", 6)
		g.inform(a, nil, resting...)
		for _, name := range resting {
			g.awaitRow(name, synced(1))
		}
		g.inform(a, nil, held...)
		for _, name := range held {
			until(t, func() bool { return len(calls.of(name, 1)) == 1 })
		}

		// A build that is not current dispatches, but works nothing: an eager start would give it the workflows that it starts.
		b := g.start(withLongClaims(d.config("b", g.controller(work("b"))), g.kind))
		early := names("early", 4)
		g.inform(b, nil, early...)
		for _, name := range early {
			g.awaitRow(name, synced(1))
			require.Equal(t, []string{"a"}, calls.of(name, 1), name)
		}

		d.setCurrent(g.kind, "b")
		close(open)
		all := slices.Concat(resting, held, early)
		for _, name := range all {
			g.awaitRow(name, synced(1))
			require.Equal(t, []string{"a"}, calls.of(name, 1), name)
		}
		for i, build := range []string{"b", "a"} { // on, and back again
			generation := int64(i + 2)
			d.setCurrent(g.kind, build)
			_, err := a.InvalidateAll(t.Context(), delta.Filter{Kinds: []string{g.kind}})
			require.NoError(t, err)
			for _, name := range all {
				row := g.awaitRow(name, synced(generation))
				require.Equal(t, 1, row.Attempt, name)
				require.Empty(t, row.Errors, name)
				require.Equal(t, []string{build}, calls.of(name, generation), name)
			}
		}
	})
}

// A ramp gives a share of the workflows to a build. Its end gives them all to the current one.
func TestARampSharesTheWorkflows(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	g := modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
	g.harness = newHarness(t)
	d, calls := deploymentOf(g.harness), &buildCalls{}
	start := func(build string) *delta.Client {
		return g.start(d.config(build, g.controller(func(_ context.Context, j job) error {
			calls.note(build, j)
			return nil
		})))
	}
	a := start("a")
	d.setCurrent(g.kind, "a")
	start("b")
	d.ramp(g.kind, "b", "50")
	all := names("r", 40)
	g.inform(a, nil, all...)
	share := map[string]int{}
	for _, name := range all {
		g.awaitRow(name, synced(1))
		builds := calls.of(name, 1)
		require.Len(t, builds, 1, name)
		share[builds[0]]++
	}
	require.Len(t, share, 2, "each has a part of the 40 workflows: %v", share)

	d.setCurrent(g.kind, "b")
	_, err := a.InvalidateAll(t.Context(), delta.Filter{Kinds: []string{g.kind}})
	require.NoError(t, err)
	for _, name := range all {
		g.awaitRow(name, synced(2))
		require.Equal(t, []string{"b"}, calls.of(name, 2), name)
	}

	d.ramp(g.kind, "a", "5")
	g.mustTemporal("worker", "deployment", "set-ramping-version", "--deployment-name", d.name, "--build-id", "a", "--delete", "--yes") // as the doctor says
	d.awaitRouting(g.kind, func(r delta.QueueRouting) bool { return r.RampPercent == 0 && r.Current == d.version("b") })
}

// Without a current version, tasks wait in silence. The log, the doctor and the explanation of a resource name the command that mends it.
func TestTasksThatWaitForACurrentVersionAreReported(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	d := deploymentOf(h)
	var logs logBuffer
	config := d.config("2026-11-29", with(&controller[account]{}))
	config.Logger, config.MaintenanceJobInterval = logs.logger(), 200*time.Millisecond
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)

	command := fmt.Sprintf("temporal worker deployment set-current-version --namespace %s --deployment-name %s --build-id 2026-11-29", h.TemporalNamespace, d.name)
	logs.awaitText(t, "tasks wait, because none of the workers that poll gets them", 2)
	require.Contains(t, logs.String(), "level=WARN")
	require.Contains(t, logs.String(), command)
	var check delta.Check
	until(t, func() bool { // Temporal lists a worker when it has polled
		check = checksByName(c.Doctor(t.Context()))["workers account"]
		return strings.Contains(check.Detail, "no version is current")
	}, "%s", shown[delta.Check]{&check})
	require.NotEqual(t, delta.CheckOK, check.State)
	require.Equal(t, "give the tasks to the workers that poll: "+command, check.Remedy)
	until(t, func() bool { // it asks Temporal for 4 s at most
		explained, err := c.Explain(t.Context(), "account", "ann")
		require.NoError(t, err)
		return slices.ContainsFunc(explained.Reasons, func(r delta.Reason) bool {
			return r.Code == delta.ReasonNoWorker && strings.Contains(r.Remedy, command)
		})
	})
	require.Zero(t, h.row("account", "ann").SyncCount)

	// The command mends it.
	until(t, func() bool { // a version exists in Temporal some time after its first poll
		_, err := h.runTemporalCommand(append(strings.Fields(strings.TrimPrefix(command, "temporal ")), "--yes")...)
		return err == nil
	})
	h.eventually("account", "ann", synced(1))
	logs.awaitText(t, "this client's workers get tasks", 1)
	until(t, func() bool {
		check = checksByName(c.Doctor(t.Context()))["workers account"]
		return check.State == delta.CheckOK && strings.Contains(check.Detail, "the current version is "+d.name+":2026-11-29")
	}, "%s", shown[delta.Check]{&check})

	// A newer build waits for its turn, which is no fault.
	var waiting logBuffer
	newer := d.config("2026-11-30", with(&controller[account]{}))
	newer.Logger = waiting.logger()
	h.start(newer)
	waiting.awaitText(t, "this client's workers get no new tasks, because another version is current", 1)
	require.Contains(t, waiting.String(), "set-current-version")
	require.NotContains(t, waiting.String(), "tasks wait")
}

// A run of an informer ends on the version on which it began if passes are pinned, and goes on with the current one otherwise. The next run begins on
// the current version in either case.
func TestARunIsPinnedToItsVersionIfAsked(t *testing.T) {
	soak.Long(t)
	for name, pinned := range map[string]bool{"auto-upgrade": false, "pinned": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			d := deploymentOf(h)
			var mu sync.Mutex
			var passes []string
			passesUntil := func(n int) (all []string) {
				until(t, func() bool {
					mu.Lock()
					defer mu.Unlock()
					all = slices.Clone(passes)
					return len(all) >= n
				})
				return all
			}
			switched := make(chan struct{})
			var failed atomic.Bool
			start := func(build string) {
				config := d.config(build, with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
					mu.Lock()
					passes = append(passes, build)
					mu.Unlock()
					if failed.CompareAndSwap(false, true) {
						<-switched
						return nil, errors.New("the first pass fails")
					}
					return sendAll(ctx, listed{Name: "one"}), nil
				}}))
				config.PinPasses = pinned
				h.start(config)
			}
			start("a")
			d.setCurrent("listed", "a")
			passesUntil(1)
			start("b")
			d.setCurrent("listed", "b")
			close(switched)
			second := "b"
			if pinned {
				second = "a"
			}
			require.Equal(t, []string{"a", second}, passesUntil(2))
			h.eventually("listed", "one", synced(1))
			until(t, func() bool { // the schedule starts no run while one goes on
				h.triggerInformer("listed")
				mu.Lock()
				defer mu.Unlock()
				return len(passes) > 2
			})
			require.Equal(t, "b", passesUntil(3)[2])
		})
	}
}

// A user's worker may pin its workflows by default. Delta's would keep an old build for ever.
func TestDeltasWorkflowsAreNotPinnedOnAUsersWorker(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	d := deploymentOf(h)
	config := h.config(with(&controller[account]{}))
	config.TaskQueue = h.Prefix + "-mine"
	c := h.client(config)
	options := ownWorker()
	options.DeploymentOptions = sdkworker.DeploymentOptions{
		UseVersioning: true, Version: sdkworker.WorkerDeploymentVersion{DeploymentName: d.name, BuildID: "a"},
		DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}
	w := sdkworker.New(h.Temporal, config.TaskQueue, options)
	require.NoError(t, c.Register(w))
	require.NoError(t, w.Start())
	defer w.Stop()
	require.NoError(t, c.Start(t.Context()))
	defer c.Stop(context.Background()) //nolint:errcheck // nothing is left to be done
	d.setCurrent("account", "a")
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(1))
	h.awaitTimer(row.WorkflowID)
	found, err := h.Temporal.DescribeWorkflow(t.Context(), row.WorkflowID, "")
	require.NoError(t, err)
	require.Equal(t, enumspb.VERSIONING_BEHAVIOR_AUTO_UPGRADE, found.RawResponse.GetWorkflowExecutionInfo().GetVersioningInfo().GetBehavior())
}
