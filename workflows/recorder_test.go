package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/workflows"
)

// recorder runs a real client on real servers, and knows what its workflows did.
type recorder struct {
	*deltatest.Env
	t      *testing.T
	client *delta.Client
	work   func(ctx context.Context, r *delta.Resource[account]) error
	inform func(ctx context.Context) (<-chan account, error)
	// batch is the id of the batch that runBatch has saved.
	batch string
}

// account is the object of the recorded workflows.
type account struct {
	Name string `json:"name"`
	Plan string `json:"plan"`
}

func (a account) ID() string { return a.Name }

func (a account) Kind() string { return "account" }

// The recorder is the controller.
func (r *recorder) Work(ctx context.Context, resource *delta.Resource[account]) error {
	return r.work(ctx, resource)
}

func (r *recorder) ResourceTimeout(*delta.Resource[account]) time.Duration { return 0 }

func (r *recorder) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan account, error) {
	return r.inform(ctx)
}

func (r *recorder) InformTimeout(*delta.InformArgs[account]) time.Duration { return 0 }

func newRecorder(t *testing.T, namespace delta.NamespaceConfig) *recorder {
	t.Helper()
	return newRecorderInforming(t, namespace, 0)
}

// newRecorderInforming is newRecorder with an interval of the informer; 0 is the default.
func newRecorderInforming(t *testing.T, namespace delta.NamespaceConfig, interval time.Duration) *recorder {
	t.Helper()
	r := &recorder{
		// The identity is in most events; by default it names the machine.
		Env:  deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) { o.Identity = "recorder" })),
		t:    t,
		work: func(context.Context, *delta.Resource[account]) error { return nil },
		inform: func(context.Context) (<-chan account, error) {
			none := make(chan account)
			close(none)
			return none, nil
		},
	}
	controllers := delta.NewControllers()
	delta.AddController(controllers, r)
	namespace.MaxWorkers = 10
	c, err := delta.NewClient(r.Pool, &delta.Config{
		Controllers:      controllers,
		Namespaces:       map[string]delta.NamespaceConfig{delta.NamespaceDefault: namespace},
		Temporal:         r.Temporal,
		WorkflowIDPrefix: r.Prefix,
		Logger:           slog.New(slog.NewTextHandler(io.Discard, nil)),

		ResourceInformInterval: interval,
	})
	require.NoError(t, err)
	r.client = c
	return r
}

func (r *recorder) start() {
	r.t.Helper()
	require.NoError(r.t, r.client.Start(context.Background()))
	r.t.Cleanup(func() { _ = r.client.Stop(context.Background()) })
}

func (r *recorder) informPlan(plan string) {
	r.t.Helper()
	_, err := r.client.Inform(r.t.Context(), account{Name: "ann", Plan: plan}, &delta.InformOpts{MaxAttempts: 2})
	require.NoError(r.t, err)
}

func (r *recorder) awaitThat(what string, is func() bool) {
	r.t.Helper()
	require.Eventually(r.t, is, time.Minute, 10*time.Millisecond, what)
}

func (r *recorder) workflowID() string { return r.Prefix + "/account/ann" }

// saveHistory writes the history of a workflow when it has ended.
func (r *recorder) saveHistory(workflowID string, file string) {
	r.t.Helper()
	r.saveAs(workflowID, file, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

// saveAs is save for a workflow that ends in another way.
func (r *recorder) saveAs(workflowID, file string, as enumspb.WorkflowExecutionStatus) {
	r.t.Helper()
	r.awaitThat("the workflow ends", func() bool {
		d, err := r.Temporal.DescribeWorkflow(r.t.Context(), workflowID, "")
		return err == nil && d.Status == as
	})
	history := &historypb.History{}
	events := r.Temporal.GetWorkflowHistory(r.t.Context(), workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(r.t, err)
		history.Events = append(history.Events, event)
	}
	// As `temporal workflow show --output json` does it.
	encoded, err := temporalproto.CustomJSONMarshalOptions{Indent: "  "}.Marshal(history)
	require.NoError(r.t, err)
	require.NoError(r.t, os.WriteFile(filepath.Join("testdata", file+".json"), append(neutralize(r.t, encoded), '\n'), 0o644))
}

// sticky is the name of a worker's own task queue: the machine's name, and a number.
var sticky = regexp.MustCompile(`"[^"]*:([0-9a-f-]{36})"`)

// neutralize replaces details of the machine that recorded a history. No replay looks at them.
func neutralize(t *testing.T, encoded []byte) []byte {
	t.Helper()
	encoded = sticky.ReplaceAll(encoded, []byte(`"recorder:$1"`))
	host, err := os.Hostname()
	require.NoError(t, err)
	require.NotContains(t, string(encoded), `"`+host)
	require.NotContains(t, string(encoded), "@"+host)
	return encoded
}

var errNotYet = errors.New("not yet")

// claimRow claims a row, as another worker would.
func (r *recorder) claimRow(objectID string, period time.Duration) error {
	_, err := r.Pool.Exec(context.Background(),
		"UPDATE delta_resource SET claim = gen_random_uuid(), claimed_until = now() + $2::interval WHERE object_id = $1", objectID, period)
	return err
}

// isExecuted reports whether a worker executes an activity of the resource's workflow.
func (r *recorder) isExecuted() bool {
	d, err := r.Temporal.DescribeWorkflow(r.t.Context(), r.workflowID(), "")
	return err == nil && slices.ContainsFunc(d.RawResponse.GetPendingActivities(), func(pending *workflowpb.PendingActivityInfo) bool {
		return pending.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
	})
}

// hasEvents reports whether a workflow's history has at least n events of a type.
func (r *recorder) hasEvents(workflowID string, event enumspb.EventType, n int) func() bool {
	return func() bool {
		found := 0
		events := r.Temporal.GetWorkflowHistory(r.t.Context(), workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				return false
			}
			if e.GetEventType() == event {
				found++
			}
		}
		return found >= n
	}
}

// informRun is the id of a run of the kind's informer that is as the conditions say.
func (r *recorder) informRun(is ...func(id string) bool) (id string) {
	r.t.Helper()
	r.awaitThat("the informer runs", func() bool {
		list, err := r.Temporal.ListWorkflow(r.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: r.TemporalNamespace,
			Query:     fmt.Sprintf("WorkflowType = '%s' AND WorkflowId STARTS_WITH '%s'", workflows.InformName, r.Prefix),
		})
		if err != nil {
			return false
		}
		for _, run := range list.GetExecutions() {
			id = run.GetExecution().GetWorkflowId()
			if !slices.ContainsFunc(is, func(is func(id string) bool) bool { return !is(id) }) {
				return true
			}
		}
		return false
	})
	return id
}
