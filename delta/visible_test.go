package delta_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// counters are a metrics handler of the SDK that adds up counters by their name, and by their name and the type of the activity.
type counters struct {
	client.MetricsHandler
	mu   *sync.Mutex
	sums map[string]int64
	// activityType is the tag of what is counted; empty without one.
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

// newCountingHarness is newHarness with a connection to Temporal that counts, and logs as that of a client does.
func newCountingHarness(t *testing.T, logs *logBuffer) (*harness, *counters) {
	t.Helper()
	counted := newCounters()
	return &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.MetricsHandler = counted
		o.Logger = delta.TemporalLogger(logs.logger())
	}))}, counted
}

// ordinary has a limit of calls, so its attempts are ordinary activities. A machine that stands still has none repeated.
type ordinary struct{ account }

func (ordinary) Kind() string { return "ordinary" }
func (ordinary) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{
		Parallelism: 4, InformInterval: -1, BatchSize: 1, RateLimit: 1000, HeartbeatTimeout: patience,
		RetryPolicy: delta.RetryPolicy{InitialInterval: 10 * time.Millisecond},
	}
}

// failuresOf are the failures of attempts in a history: of ordinary activities, and of local ones.
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

// workTrying fails and snoozes by the name of its object, and succeeds in the third attempt, whatever was counted.
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
	require.NotContains(t, logs.String(), errBoom.Error(), "the SDK's line is one more for the same failure")
	require.Equal(t, 2, strings.Count(own.String(), "an attempt failed; it is tried again"))
	require.Contains(t, own.String(), "the resource is degraded")
}

// An attempt is not local as a whole where the machine is busy, so some of them are tried.
func TestAFailedLocalAttemptIsAFailedLocalActivity(t *testing.T) {
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

// What docs say of the metrics of Temporal's SDK is true of the SDK that is linked.
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
	until(t, func() bool { // an attempt is not local as a whole where the machine is busy
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
	}, shown[map[string]bool]{&named})
}

// A command while Work runs makes its failure one of the past.
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

// Temporal does not learn that an attempt has failed, and gives it to a worker again: the outcome is in the row.
func TestAFailedAttemptWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
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
	config.Kinds = map[string]delta.ObjectSettings{"ordinary": {HeartbeatTimeout: 4 * time.Second}} // Temporal misses the answer by it
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

// summaryOf is what the UI shows of an event.
func summaryOf(t *testing.T, e *historypb.HistoryEvent) (summary string) {
	t.Helper()
	require.NoError(t, converter.GetDefaultDataConverter().FromPayload(e.GetUserMetadata().GetSummary(), &summary))
	return summary
}

// The summary of a timer is in the history: nobody has to ask a worker for it.
func TestTemporalShowsTheReasonOfATimer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		switch r.ObjectID {
		case "hopeless":
			return delta.ResourceDegrade(errBoom)
		case "exhausted":
			return errBoom
		case "gone":
			return delta.ResourceDelete(nil)
		case "failed":
			return delta.ResourceSnooze(time.Hour)
		}
		return nil
	})
	for id, says := range map[string]struct{ timer, details string }{
		"good":      {"synced: until it expires or is removed", "when it expires or is removed"},
		"hopeless":  {"degraded: until it is removed", "when it is removed"},
		"exhausted": {"degraded: until it is tried again", "when it is tried again"},
		"gone":      {"deleted: until it is removed", "when it is removed"},
		"failed":    {"scheduled: until the next attempt", "It waits for its next attempt, until"},
	} {
		_, err := c.Inform(t.Context(), account{Name: id}, &delta.InformOpts{MaxAttempts: 1})
		require.NoError(t, err)
		workflowID := h.Prefix + "/account/" + id
		timer := h.awaitEvent(workflowID, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
		require.Equal(t, says.timer, summaryOf(t, timer), id)
		require.Contains(t, h.workflowDetails(workflowID), says.details, id)
	}
}

func TestTheDetailsOfABatchNameItsFailures(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error {
		if strings.HasPrefix(r.ObjectID, "fails") {
			return fmt.Errorf("calling for %s: %w", r.ObjectID, errBoom)
		}
		return nil
	}})))
	_, err := c.InformMany(t.Context(), manyBatched(append(names("good", 40), names("fails", 25)...)...), nil)
	require.NoError(t, err)
	row := h.eventually("batched", "good00", synced(1))
	h.awaitTimer(row.WorkflowID)
	details := h.workflowDetails(row.WorkflowID)
	require.Contains(t, details, "failed 25")
	require.Contains(t, details, "20 of those that failed go on in workflows of their own, the others in other batches")
	require.Equal(t, 20, strings.Count(details, errBoom.Error()))
	require.Contains(t, details, "and 5 more")
	require.Contains(t, h.staticDetails(row.WorkflowID, ""), "second argument of the input")
}

// staticDetails are what Temporal's server keeps for people who look at a workflow.
func (h *harness) staticDetails(workflowID, runID string) (details string) {
	h.t.Helper()
	described, err := h.Temporal.DescribeWorkflow(context.Background(), workflowID, runID)
	require.NoError(h.t, err)
	payload := described.RawResponse.GetExecutionConfig().GetUserMetadata().GetDetails()
	require.NoError(h.t, converter.GetDefaultDataConverter().FromPayload(payload, &details))
	return details
}

func TestARunOfAnInformerReportsListedAndDeletedObjects(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(10)}
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform})))
	run := func() *delta.InformRun {
		r, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
		require.NoError(t, err)
		return r
	}
	listed := run()
	require.Contains(t, h.workflowDetails(listed.WorkflowID), "(started by request) has ended")
	require.Contains(t, h.workflowDetails(listed.WorkflowID), "Listed **10** in 1 pages, of all there is. New or changed 10, refused 0")
	outside.set(newMirrors(9)...)
	deleted := run()
	require.Contains(t, h.workflowDetails(deleted.WorkflowID), "Marked deleted, because they are not listed any more: 1. m009")
	outside.set(newMirrors(1)...)
	withheld := run()
	require.Contains(t, h.workflowDetails(withheld.WorkflowID), "(delta informs approve mirror, or dismiss): 8. m001, m002")

	// The server has it, too, where no worker answers.
	require.NoError(t, c.Stop(context.Background()))
	result := func(r *delta.InformRun) *activities.PassReport {
		var progress activities.InformProgress
		require.NoError(t, h.Temporal.GetWorkflow(t.Context(), r.WorkflowID, r.RunID).Get(t.Context(), &progress))
		return progress.Pass
	}
	require.Equal(t, &activities.PassReport{Complete: true, Pages: 1}, result(listed))
	require.Equal(t, []string{"m009"}, result(deleted).Deleted)
	require.Len(t, result(withheld).Withheld, 8)
	require.Contains(t, h.staticDetails(listed.WorkflowID, listed.RunID), "is in its result")
}

// countLines are those of a log that say something and have all of some fields.
func (b *logBuffer) countLines(message string, fields ...string) (n int) {
	for line := range strings.Lines(b.String()) {
		has := strings.Contains(line, fmt.Sprintf("msg=%q", message))
		for _, field := range fields {
			has = has && strings.Contains(line, " "+field)
		}
		if has {
			n++
		}
	}
	return n
}

func TestTheLogHasTheOutcomesOfAResource(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error { return nil }}))
	config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(1))
	of := []string{"kind=account", "object_id=ann", "namespace=default", "generation=1", "workflow_id=" + row.WorkflowID}
	until(t, func() bool {
		return logs.countLines("an outcome was written", append(of, "attempt=1", "state=synced")...) == 1
	}, shown[logBuffer]{&logs})
	require.Equal(t, 1, logs.countLines("rows were leased", "level=DEBUG", "kind=account", "resources=1"))
	// It is logged when Temporal has answered; the workflow may have synced the resource by then.
	until(t, func() bool { return logs.countLines("a workflow was started or woken", of...) == 1 }, shown[logBuffer]{&logs})
	require.Equal(t, 1, logs.countLines("an attempt was claimed", append(of, "attempt=1", "claim=")...))
}

func TestTheLogHasTheResultOfAPass(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	outside := &upstream[mirror]{all: newMirrors(10)}
	config := h.config(with(&controller[mirror]{inform: outside.inform}))
	config.Logger = logs.logger()
	c := h.start(config)
	run := func() *delta.InformRun {
		r, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
		require.NoError(t, err)
		return r
	}
	r := run()
	require.Equal(t, 1, logs.countLines("a pass of the informer has ended", "level=INFO", "kind=mirror", "workflow_id="+r.WorkflowID, "run_id="+r.RunID, "trigger=request",
		"listed=10", "new=10", "changed=0", "unchanged=0", "deleted=0", "withheld=0", "pages=1", "complete=true"), logs.String())
	outside.set(newMirrors(9)...)
	run()
	require.Equal(t, 1, logs.countLines("a pass of the informer has ended", "listed=9", "new=0", "unchanged=9", "deleted=1"))
}

func TestTheLogHasNoIDThatIsHashed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	config := h.config(
		with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
			if r.Attempt == 1 {
				return errBoom
			}
			return nil
		}}),
		with(&controller[batched]{}),
	)
	config.HashObjectIDs = true
	config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "classified"}, nil)
	require.NoError(t, err)
	_, err = c.InformMany(t.Context(), manyBatched(names("classified", 40)...), nil)
	require.NoError(t, err)
	row := h.eventually("account", "classified", synced(1))
	h.eventually("batched", "classified00", synced(1))
	until(t, func() bool {
		return logs.countLines("an outcome was written", "hashed_id="+row.HashedID, "state=synced") == 1
	})
	require.Positive(t, logs.countLines("an attempt was claimed", "hashed_id="+row.HashedID))
	require.Positive(t, logs.countLines("members of a batch were claimed"))
	require.NotContains(t, logs.String(), "classified")
}
