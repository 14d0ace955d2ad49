package delta_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// counters is a metrics handler of the SDK that sums counters by name, and by name and type of the activity.
type counters struct {
	client.MetricsHandler
	mu   *sync.Mutex
	sums map[string]int64
	// activityType is the tag of the counted activity; empty without one.
	activityType string
}

func newCounters() *counters {
	return &counters{MetricsHandler: client.MetricsNopHandler, mu: &sync.Mutex{}, sums: map[string]int64{}}
}

func (c *counters) WithTags(tags map[string]string) client.MetricsHandler {
	tagged := *c
	tagged.activityType = cmp.Or(tags["activity_type"], c.activityType)
	return &tagged
}

func (c *counters) Counter(name string) client.MetricsCounter { return counter{c, name} }

func (c *counters) sum(name string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sums[name]
}

type counter struct {
	of   *counters
	name string
}

func (c counter) Inc(n int64) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.sums[c.name] += n
	if c.of.activityType != "" {
		c.of.sums[c.name+" of "+c.of.activityType] += n
	}
}

// newCountingHarness is newHarness with a connection to Temporal that counts metrics, and logs like a client's own.
func newCountingHarness(t *testing.T, logs *logBuffer) (*harness, *counters) {
	t.Helper()
	counted := newCounters()
	return &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.MetricsHandler = counted
		o.Logger = delta.TemporalLogger(logs.logger())
	}))}, counted
}

// ordinary is a kind with a rate limit, so that its attempts are ordinary activities. Its long claims survive a stalled machine.
type ordinary struct{ account }

func (ordinary) Kind() string { return "ordinary" }
func (ordinary) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism: 4, InformInterval: -1, BatchSize: 1, RateLimit: 1000, HeartbeatTimeout: patience,
		RetryPolicy: delta.RetryPolicy{InitialInterval: 10 * time.Millisecond},
	}
}

// failuresOf returns the failures of attempts in a history: of ordinary activities, and of local ones.
func failuresOf(history []*historypb.HistoryEvent) (failed, local []*failurepb.Failure) {
	for _, e := range history {
		if f := e.GetActivityTaskFailedEventAttributes().GetFailure(); f != nil {
			failed = append(failed, f)
		}
		if f := e.GetMarkerRecordedEventAttributes().GetFailure(); f != nil {
			local = append(local, f)
		}
	}
	return failed, local
}

func requireFailure(t *testing.T, f *failurepb.Failure, errorType, message string) {
	t.Helper()
	require.Equal(t, message, f.GetMessage())
	require.Equal(t, errorType, f.GetApplicationFailureInfo().GetType())
	require.True(t, f.GetApplicationFailureInfo().GetNonRetryable(), "Temporal decides nothing by it")
	isBenign := f.GetApplicationFailureInfo().GetCategory() == enumspb.APPLICATION_ERROR_CATEGORY_BENIGN
	require.Equal(t, errorType != activities.AttemptFailed, isBenign)
}

// workTrying fails and snoozes by the name of its object, and succeeds in the third call.
func workTrying(calls *sync.Map, id string) error {
	n, _ := calls.LoadOrStore(id, new(int))
	*n.(*int)++
	switch {
	case strings.HasPrefix(id, "snoozes") && *n.(*int) < 3:
		return delta.ResourceSnooze(10 * time.Millisecond)
	case strings.HasPrefix(id, "hopeless"):
		return delta.ResourceDegrade(errBoom)
	case strings.HasPrefix(id, "fails") && *n.(*int) < 3:
		return errBoom
	}
	return nil
}

func TestAFailedAttemptIsAFailedActivity(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var logs logBuffer
	h, counted := newCountingHarness(t, &logs)
	var calls sync.Map
	config := h.config(with(&controller[ordinary]{work: func(_ context.Context, r *delta.Resource[ordinary]) error { return workTrying(&calls, r.ObjectID) }}))
	var own logBuffer
	config.Logger = slog.New(slog.NewTextHandler(&own, nil))
	c := h.start(config)

	inform := func(id string) {
		_, err := c.Inform(t.Context(), ordinary{account{Name: id}}, nil)
		require.NoError(t, err)
	}
	inform("snoozes")
	row := h.eventually("ordinary", "snoozes", synced(1))
	failed, _ := failuresOf(h.history(row.WorkflowID))
	require.Len(t, failed, 2)
	requireFailure(t, failed[0], activities.AttemptSnoozed, "attempt 1 of 10 was snoozed: resource snoozed for 10ms")
	require.Zero(t, counted.sum("temporal_activity_execution_failed"), "a snooze is no failure")

	inform("fails")
	row = h.eventually("ordinary", "fails", synced(1))
	failed, _ = failuresOf(h.history(row.WorkflowID))
	require.Len(t, failed, 2)
	requireFailure(t, failed[0], activities.AttemptFailed, "attempt 1 of 10: "+errBoom.Error())
	requireFailure(t, failed[1], activities.AttemptFailed, "attempt 2 of 10: "+errBoom.Error())
	require.Equal(t, int64(2), counted.sum("temporal_activity_execution_failed"))

	inform("hopeless")
	row = h.eventually("ordinary", "hopeless", inState(deltatype.ResourceStateDegraded))
	h.awaitEvent(row.WorkflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
	failed, _ = failuresOf(h.history(row.WorkflowID))
	require.Len(t, failed, 1)
	requireFailure(t, failed[0], activities.AttemptFailed, "attempt 1 of 10: resource degraded: "+errBoom.Error())
	require.NotContains(t, logs.String(), errBoom.Error(), "the SDK logs another line for the same failure")
	require.Equal(t, 2, strings.Count(own.String(), "an attempt failed; it is tried again"))
	require.Contains(t, own.String(), "the resource is degraded")
}

// On a busy machine, an attempt may not be entirely local, so the test tries several.
func TestAFailedLocalAttemptIsAFailedLocalActivity(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h, counted := newCountingHarness(t, new(logBuffer))
	var calls sync.Map
	c := h.start(h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error { return workTrying(&calls, r.ObjectID) }})))
	var names atomicCounter
	local := func(name string, is func(*deltatype.ResourceRow) bool) (failures []*failurepb.Failure) {
		until(t, func() bool {
			id := names.next(name)
			_, err := c.Inform(t.Context(), account{Name: id}, nil)
			require.NoError(t, err)
			row := h.eventually("account", id, is)
			h.awaitEvent(row.WorkflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
			history := h.history(row.WorkflowID)
			_, failures = failuresOf(history)
			return ordinaryAttempts(history) == 0
		})
		return failures
	}
	failures := local("hopeless", inState(deltatype.ResourceStateDegraded))
	require.Len(t, failures, 1)
	requireFailure(t, failures[0], activities.AttemptFailed, "attempt 1 of 10: resource degraded: "+errBoom.Error())
	require.Positive(t, counted.sum("temporal_local_activity_execution_failed"))
	failures = local("snoozes", synced(1))
	require.Len(t, failures, 2)
	requireFailure(t, failures[0], activities.AttemptSnoozed, "attempt 1 of 10 was snoozed: resource snoozed for 10ms")
}

// The docs' claims about metrics of Temporal's SDK are true for the linked SDK.
func TestTheMetricsOfTheSDKThatDocsNameCountFailedAttempts(t *testing.T) {
	t.Parallel()
	named := map[string]bool{}
	for _, document := range []string{"metrics.md", "operations.md", "temporal.md"} {
		text, err := os.ReadFile("../docs/" + document)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile("`(temporal_[a-z_]*[a-z])`").FindAllSubmatch(text, -1) {
			named[string(found[1])] = true
		}
	}
	require.Len(t, named, 2)
	h, counted := newCountingHarness(t, new(logBuffer))
	fails := func() error { return delta.ResourceDegrade(errBoom) }
	c := h.start(h.config(
		with(&controller[account]{work: func(context.Context, *delta.Resource[account]) error { return fails() }}),
		with(&controller[ordinary]{work: func(context.Context, *delta.Resource[ordinary]) error { return fails() }}),
	))
	var names atomicCounter
	until(t, func() bool { // on a busy machine, an attempt may not be entirely local
		id := names.next("fails")
		for kind, object := range map[string]delta.Object{"account": account{Name: id}, "ordinary": ordinary{account{Name: id}}} {
			_, err := c.Inform(t.Context(), object, nil)
			require.NoError(t, err)
			h.eventually(kind, id, inState(deltatype.ResourceStateDegraded))
		}
		for name := range named {
			if counted.sum(name+" of "+activities.AttemptName) == 0 {
				return false
			}
		}
		return true
	}, "%s", shown[map[string]bool]{&named})
}

// A command during Work makes its failure a benign one of the past.
func TestAFailureThatWasSupersededIsBenign(t *testing.T) {
	t.Parallel()
	h, counted := newCountingHarness(t, new(logBuffer))
	var c *delta.Client
	c = h.start(h.config(with(&controller[ordinary]{work: func(ctx context.Context, r *delta.Resource[ordinary]) error {
		switch {
		case r.Object.Plan == "free":
			if _, err := c.Inform(ctx, ordinary{account{Name: r.ObjectID, Plan: "paid"}}, nil); err != nil {
				return err
			}
			return errBoom
		case r.ObjectID == "deleted":
			_, err := c.Delete(ctx, "ordinary", r.ObjectID)
			return errors.Join(errBoom, err)
		}
		return nil
	}})))
	for _, object := range []ordinary{{account{Name: "informed", Plan: "free"}}, {account{Name: "deleted"}}} {
		_, err := c.Inform(t.Context(), object, nil)
		require.NoError(t, err)
	}
	row := h.eventually("ordinary", "informed", synced(2))
	failed, _ := failuresOf(h.history(row.WorkflowID))
	require.Len(t, failed, 1)
	requireFailure(t, failed[0], activities.AttemptSuperseded, "attempt 1 of 10 is superseded by generation 2: "+errBoom.Error())
	row = h.eventually("ordinary", "deleted", inState(deltatype.ResourceStateDeleted))
	h.awaitEvent(row.WorkflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
	failed, _ = failuresOf(h.history(row.WorkflowID))
	require.Len(t, failed, 1)
	require.Equal(t, activities.AttemptSuperseded, failed[0].GetApplicationFailureInfo().GetType())
	require.Zero(t, counted.sum("temporal_activity_execution_failed"))
}

// Temporal does not learn that an attempt failed, and gives it to a worker again: the row has the outcome.
func TestAFailedAttemptWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var lost atomic.Bool
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.Logger = quiet{}
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if _, ok := req.(*workflowservice.RespondActivityTaskFailedRequest); ok && !lost.Swap(true) {
					return status.Error(codes.InvalidArgument, "the test loses it") // which the SDK does not try again
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			}))
	}))}
	var calls sync.Map
	config := h.config(with(&controller[ordinary]{work: func(_ context.Context, r *delta.Resource[ordinary]) error { return workTrying(&calls, r.ObjectID) }}))
	config.Kinds = map[string]delta.ObjectSettings{"ordinary": {HeartbeatTimeout: 4 * time.Second}} // by which Temporal misses the answer
	c := h.start(config)
	_, err := c.Inform(t.Context(), ordinary{account{Name: "fails"}}, nil)
	require.NoError(t, err)
	row := h.eventually("ordinary", "fails", synced(1))
	require.True(t, lost.Load(), "an answer was lost")
	require.Equal(t, 3, row.Attempt)
	require.Len(t, row.Errors, 2)
	n, _ := calls.Load("fails")
	require.Equal(t, 3, *n.(*int), "Work is called once for each attempt")
	failed, _ := failuresOf(h.history(row.WorkflowID))
	require.LessOrEqual(t, len(failed), 1)
}
