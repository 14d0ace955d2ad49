package delta_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
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
	"github.com/chariot-giving/delta/workflows"
)

// The answer of the waiting activity is lost: it runs again, and still has its count.
func TestALostAnswerDoesNotHideDegradedResourcesOfARun(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	var lost atomic.Bool
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				done, ok := req.(*workflowservice.RespondActivityTaskCompletedRequest)
				if ok && bytes.Contains(done.GetResult().GetPayloads()[0].GetData(), []byte(`"named"`)) && !lost.Swap(true) {
					return status.Error(codes.InvalidArgument, "the test loses it") // which the SDK does not try again
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			}))
	}))}
	outside := &upstream[mirror]{all: newMirrors(10)}
	c := h.start(h.config(with(&controller[mirror]{inform: outside.inform, work: func(_ context.Context, r *delta.Resource[mirror]) error {
		if r.ObjectID == "m003" || r.ObjectID == "m007" {
			return delta.ResourceDegrade(errors.New("hopeless"))
		}
		return nil
	}})))
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
	require.ErrorContains(t, err, "2 of 10 resources degraded: m003, m007")
	require.True(t, lost.Load(), "an answer was lost")
	require.Equal(t, 10, run.Listed)
	until(t, func() bool { return h.countRows("SELECT count(*) FROM delta_listing") == 0 }, "the run's record is removed")
}

// secretive is a kind whose ids Temporal must not have. One of its objects cannot be stored by Postgres.
type secretive struct {
	mirror
	Amount jsonNumber `json:"amount"`
}

type jsonNumber string

func (n jsonNumber) MarshalJSON() ([]byte, error) {
	if n == "" {
		return []byte("0"), nil
	}
	return []byte(n), nil
}

func (n *jsonNumber) UnmarshalJSON(data []byte) error {
	*n = jsonNumber(data)
	return nil
}

func (secretive) Kind() string { return "secretive" }

// findWorkflows returns the workflows of a prefix, closed ones too, by run.
func (h *harness) findWorkflows() (ids map[string]string) {
	h.t.Helper()
	ids = map[string]string{} // by run
	request := &workflowservice.ListWorkflowExecutionsRequest{Namespace: h.TemporalNamespace, Query: "WorkflowId STARTS_WITH '" + h.Prefix + "'"}
	for {
		page, err := h.Temporal.ListWorkflow(context.Background(), request)
		require.NoError(h.t, err)
		for _, w := range page.GetExecutions() {
			ids[w.GetExecution().GetRunId()] = w.GetExecution().GetWorkflowId()
		}
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return ids
		}
	}
}

func TestNothingInTemporalHasAnIDThatIsHashed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	const secret = "classified"
	work := func(id string, attempt int) error {
		switch {
		case strings.Contains(id, "degrades"):
			return delta.ResourceDegrade(errors.New("no account of " + id))
		case strings.Contains(id, "panics") && attempt == 1:
			panic("no luck with " + id)
		case strings.Contains(id, "fails") && attempt == 1:
			return errors.New("try again with " + id)
		}
		return nil
	}
	outside := &upstream[secretive]{}
	config := h.config(
		with(&controller[secretive]{inform: outside.inform, work: func(_ context.Context, r *delta.Resource[secretive]) error { return work(r.ObjectID, r.Attempt) }}),
		with(&controller[batched]{work: func(_ context.Context, r *delta.Resource[batched]) error { return work(r.ObjectID, r.Attempt) }}),
	)
	config.HashObjectIDs = true
	var logs logBuffer
	config.Logger = logs.logger()
	c := h.start(config)

	// Runs of the informer: one with refused objects, one that fails, and one with resources that degrade.
	list := func(names ...string) (all []secretive) {
		for _, name := range names {
			all = append(all, secretive{mirror: mirror{Name: secret + name}})
		}
		return all
	}
	runs := map[string]bool{}
	run := func() (*delta.InformRun, error) {
		r, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "secretive", RunForeground: true}, nil)
		runs[r.RunID] = true
		return r, err
	}
	refused := list("-big", "-bad\x00", strings.Repeat("-long", 500))
	refused[0].Amount = "1e200000"
	outside.set(append(list("-ok"), refused...)...)
	r, err := run()
	require.NoError(t, err)
	require.Equal(t, 3, r.Refused)
	require.True(t, logs.hasLine("a listing names objects that cannot be taken", "refused=3"))
	require.NotContains(t, logs.String(), secret)
	outside.set(list("-ok", "-fails", "-panics", "-degrades")...)
	outside.failWith(errors.New("the page of " + secret + " is gone"))
	require.NoError(t, c.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "secretive"}, nil))
	latest := func() delta.InformPass {
		passes, err := c.InformPasses(t.Context(), "secretive", "", 1)
		require.NoError(t, err)
		return passes[0]
	}
	until(t, func() bool { return strings.Contains(latest().Error, secret) }, "its history has the error")
	runs[latest().RunID] = true
	outside.failWith(nil)
	until(t, func() bool {
		pass := latest()
		return pass.EndedAt != nil && pass.Error == ""
	}, "its next pass succeeds; beside a later run, it would keep what that does not list")
	_, err = run()
	require.ErrorContains(t, err, "1 of 4 resources degraded: #")
	require.NotContains(t, err.Error(), secret)

	// Singles and batches.
	var members []string
	for _, name := range append(names("-ok", 30), "-fails", "-panics", "-degrades") {
		members = append(members, secret+name)
	}
	_, err = c.InformMany(t.Context(), manyBatched(members...), nil)
	require.NoError(t, err)
	workflowIDs := map[string]bool{}
	for _, id := range members {
		row := h.eventually("batched", id, func(r *deltatype.ResourceRow) bool {
			return synced(1)(r) || inState(deltatype.ResourceStateDegraded)(r)
		})
		workflowIDs[row.WorkflowID] = true
	}
	for _, name := range []string{"-fails", "-panics", "-degrades"} { // their failures are counted below
		workflowIDs[h.row("secretive", secret+name).WorkflowID] = true
	}
	// Refused signals.
	for kind, id := range map[string]string{"secretive": secret + "-degrades", "batched": secret + "-fails"} {
		row := h.row(kind, id)
		command, says := "invalidate", "Refused: invalidate"
		if kind == "batched" {
			command, says = "retry", "Refused: retry"
		}
		require.NoError(t, h.Temporal.SignalWorkflow(t.Context(), row.WorkflowID, "", command, nil))
		until(t, func() bool { return strings.Contains(h.workflowDetails(row.WorkflowID), says) }, "%s", row.WorkflowID)
	}

	// A run whose listing omits a resource, and names it.
	outside.set(list("-ok")...)
	r, err = run()
	require.NoError(t, err)
	require.Equal(t, 3, r.Deleted)
	until(t, func() bool {
		return strings.Contains(h.workflowDetails(r.WorkflowID), "because they are not listed any more: 3. #")
	})

	var found map[string]string
	until(t, func() bool {
		found = h.findWorkflows()
		open := map[string]bool{}
		for run, id := range found {
			open[run], open[id] = true, true
		}
		for _, all := range []map[string]bool{runs, workflowIDs} {
			for id := range all {
				if !open[id] {
					return false
				}
			}
		}
		return true
	}, "visibility lists all workflows")
	failures := 0
	for runID, id := range found {
		require.NotContains(t, id, secret)
		require.NotContains(t, h.workflowDetails(id), secret, id)
		events := h.Temporal.GetWorkflowHistory(t.Context(), id, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			if f := cmp.Or(event.GetActivityTaskFailedEventAttributes().GetFailure(), event.GetMarkerRecordedEventAttributes().GetFailure()); f != nil &&
				activities.HasStep(f.GetApplicationFailureInfo().GetType()) {
				failures++
			}
			encoded, err := event.Marshal()
			require.NoError(t, err)
			require.NotContains(t, string(encoded), secret, "event %d of %s: %s", event.GetEventId(), id, event)
		}
		described, err := h.Temporal.DescribeWorkflow(t.Context(), id, runID)
		require.NoError(t, err)
		require.NotContains(t, described.RawResponse.String(), secret)
		if described.RawResponse.GetWorkflowExecutionInfo().GetType().GetName() != workflows.InformName {
			var answer any
			until(t, func() bool { // a busy worker may answer a query too late
				value, err := h.Temporal.QueryWorkflow(t.Context(), id, runID, workflows.StateQuery)
				return err == nil && value.Get(&answer) == nil
			}, id)
			require.NotContains(t, strings.ToLower(stringOf(answer)), secret)
		}
	}
	require.Greater(t, len(found), 5)
	require.GreaterOrEqual(t, failures, 3, "failed attempts are among them")
}
