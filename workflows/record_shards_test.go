package workflows_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/workflows"
)

// regional is an object of a kind that is listed by shards.
type regional struct{ account }

func (regional) Kind() string    { return "regional" }
func (r regional) Shard() string { return strings.SplitN(r.Name, "/", 2)[0] }

type regionalController struct {
	delta.WorkerDefaults[regional]
	delta.InformerDefaults[regional]
}

func (regionalController) Work(context.Context, *delta.Resource[regional]) error { return nil }

func (regionalController) Shards(context.Context) ([]string, error) {
	return []string{"east", "north", "west"}, nil
}

func (regionalController) Inform(_ context.Context, o *delta.InformOptions) (<-chan regional, error) {
	all := make(chan regional, 1)
	all <- regional{account{Name: o.Shard + "/ann"}}
	close(all)
	return all, nil
}

// newShardRecorder starts a client of the kind, with a schedule.
func newShardRecorder(t *testing.T, interval time.Duration) *recorder {
	t.Helper()
	r := newRecorder(t, delta.NamespaceConfig{})
	controllers := delta.NewControllers()
	delta.AddController(controllers, regionalController{})
	c, err := delta.NewClient(r.Pool, &delta.Config{
		Controllers: controllers, Temporal: r.Temporal, WorkflowIDPrefix: r.Prefix, ResourceInformInterval: interval,
		Namespaces: map[string]delta.NamespaceConfig{delta.NamespaceDefault: {MaxWorkers: 10}},
	})
	require.NoError(t, err)
	r.client = c
	r.start()
	return r
}

func TestRecordShards(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	for name, run := range map[string]func(t *testing.T, name string){
		"inform-shards-requested": func(t *testing.T, name string) {
			r := newShardRecorder(t, -1)
			run, err := r.client.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "regional"}, nil)
			require.NoError(t, err)
			require.Equal(t, 3, run.Listed)
			r.saveHistory(run.WorkflowID, name)
		},
		// The passes of its shards begin a second apart.
		"inform-shards-scheduled": func(t *testing.T, name string) {
			r := newShardRecorder(t, 4*time.Second)
			var id string
			r.awaitThat("a run has begun its shards", func() bool {
				list, err := r.Temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
					Namespace: r.TemporalNamespace, Query: "WorkflowType = '" + workflows.InformName + "' AND WorkflowId STARTS_WITH '" + r.Prefix + "'",
				})
				require.NoError(t, err)
				for _, run := range list.GetExecutions() {
					id = run.GetExecution().GetWorkflowId()
					if r.hasEvents(id, enumspb.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED, 3)() && r.hasEvents(id, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, 1)() {
						return true
					}
				}
				return false
			})
			require.NotContains(t, id, "/shard:")
			r.saveHistory(id, name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, name)
		})
	}
}
