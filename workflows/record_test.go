package workflows_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/workflows"
)

// Record the histories anew, all or one of them, with
//
//	go test ./workflows -run TestRecord -record
//	go test ./workflows -run TestRecord/woken-twice -record
//
// Do so for a way of going on that has no history yet. Do not replace those of a release: they stand for workflows that
// run out there, and what they record must replay for ever.
var record = flag.Bool("record", false, "record the histories in testdata on a real Temporal")

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

// account is the object whose workflows are recorded.
type account struct {
	Name string `json:"name"`
	Plan string `json:"plan"`
}

func (a account) ID() string   { return a.Name }
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

func (r *recorder) informs(plan string) {
	r.t.Helper()
	_, err := r.client.Inform(r.t.Context(), account{Name: "ann", Plan: plan}, &delta.InformOpts{MaxAttempts: 2})
	require.NoError(r.t, err)
}

func (r *recorder) wait(what string, is func() bool) {
	r.t.Helper()
	require.Eventually(r.t, is, time.Minute, 10*time.Millisecond, what)
}

func (r *recorder) workflow() string { return r.Prefix + "/account/ann" }

// save writes the history of a workflow when it has ended.
func (r *recorder) save(workflowID string, file string) {
	r.t.Helper()
	r.saveAs(workflowID, file, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

// saveAs is save for a workflow that ends in another way.
func (r *recorder) saveAs(workflowID, file string, as enumspb.WorkflowExecutionStatus) {
	r.t.Helper()
	r.wait("the workflow ends", func() bool {
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
	require.NoError(r.t, os.WriteFile(filepath.Join("testdata", file+".json"), append(neutral(r.t, encoded), '\n'), 0o644))
}

// sticky is the name of a worker's own task queue: the machine's name, and a number.
var sticky = regexp.MustCompile(`"[^"]*:([0-9a-f-]{36})"`)

// neutral replaces what tells about the machine that recorded a history. No replay looks at it.
func neutral(t *testing.T, encoded []byte) []byte {
	t.Helper()
	encoded = sticky.ReplaceAll(encoded, []byte(`"recorder:$1"`))
	host, err := os.Hostname()
	require.NoError(t, err)
	require.NotContains(t, string(encoded), `"`+host)
	require.NotContains(t, string(encoded), "@"+host)
	return encoded
}

var errNotYet = errors.New("not yet")

const short = 300 * time.Millisecond

func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	removed := delta.NamespaceConfig{
		SyncedResourceRetentionPeriod: short, DegradedResourceRetentionPeriod: short, DeletedResourceRetentionPeriod: short,
	}
	for name, scenario := range map[string]func(t *testing.T, name string){
		"synced-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"failed-synced-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"informed-during-work": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 {
					r.informs("paid")
				}
				return nil
			}
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"informed-during-backoff": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			failed := make(chan struct{})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 {
					close(failed)
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informs("free")
			<-failed
			r.wait("a timer runs", r.has(r.workflow(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			r.informs("paid")
			r.save(r.workflow(), name)
		},
		"degraded-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(context.Context, *delta.Resource[account]) error { return delta.ResourceDegrade(errNotYet) }
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"deleted-removed": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(context.Context, *delta.Resource[account]) error { return delta.ResourceDelete(nil) }
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"expired-twice": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{ResourceExpiry: short})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation < 3 {
					return nil
				}
				// The third time it rests for ever, and its lifecycle ends.
				_, err := r.Pool.Exec(context.Background(),
					"UPDATE delta_namespace SET resource_expiry = '0', synced_retention = '-1 hour'")
				return err
			}
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"handed-over": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					r.wait("an ordinary activity waits for it", r.isExecuted)
					time.Sleep(activities.MaxLocalAttempt)
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
			require.True(t, r.has(r.workflow(), enumspb.EVENT_TYPE_MARKER_RECORDED, 1)(), "it was not local")
			require.True(t, r.has(r.workflow(), enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED, 1)(), "the ordinary activity did not fail")
		},
		"woken-twice": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: 2 * time.Second})
			r.start()
			r.informs("free")
			r.wait("it rests", r.has(r.workflow(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			for range 2 {
				require.NoError(t, r.Temporal.SignalWorkflow(t.Context(), r.workflow(), "", workflows.WakeSignal, nil))
			}
			r.save(r.workflow(), name)
		},
		// The others were recorded when new rows had their workflow signalled too.
		"started-eagerly": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: time.Second})
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Generation == 1 && resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informs("free")
			r.wait("it rests", r.has(r.workflow(), enumspb.EVENT_TYPE_TIMER_STARTED, 2))
			r.informs("paid")
			r.save(r.workflow(), name)
		},
		// As when Temporal takes a worker for dead that goes on: the second attempt waits for its claim.
		"found-a-living-claim": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.work = func(_ context.Context, resource *delta.Resource[account]) error {
				if resource.Attempt == 1 {
					return errNotYet
				}
				return nil
			}
			r.start()
			r.informs("free")
			r.wait("it waits for its second attempt", r.has(r.workflow(), enumspb.EVENT_TYPE_TIMER_STARTED, 1))
			require.NoError(t, r.claim("ann", 5*time.Second))
			r.save(r.workflow(), name)
			require.True(t, r.has(r.workflow(), enumspb.EVENT_TYPE_MARKER_RECORDED, 4)(), "it did not find the claim") // three attempts, and its removal
		},
		"rests-for-ever": func(t *testing.T, name string) {
			r := newRecorder(t, delta.NamespaceConfig{SyncedResourceRetentionPeriod: -1})
			r.start()
			r.informs("free")
			r.save(r.workflow(), name)
		},
		"inform": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			r.start()
			r.save(r.informRun(), name)
		},
		"inform-part-of-a-second": func(t *testing.T, name string) {
			r := newRecorderInforming(t, removed, 1500*time.Millisecond)
			r.start()
			r.save(r.informRun(func(id string) bool { return r.has(id, enumspb.EVENT_TYPE_TIMER_FIRED, 1)() }), name)
		},
		"inform-failed-once": func(t *testing.T, name string) {
			r := newRecorder(t, removed)
			var runs atomic.Int64
			r.inform = func(context.Context) (<-chan account, error) {
				if runs.Add(1) == 1 {
					return nil, errNotYet
				}
				all := make(chan account, 1)
				all <- account{Name: "bob"}
				close(all)
				return all, nil
			}
			r.start()
			r.save(r.informRun(), name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(t, name)
		})
	}
}

// claim claims a row, as another worker would.
func (r *recorder) claim(objectID string, period time.Duration) error {
	_, err := r.Pool.Exec(context.Background(),
		"UPDATE delta_resource SET claim = gen_random_uuid(), claimed_until = now() + $2::interval WHERE object_id = $1", objectID, period)
	return err
}

// isExecuted reports whether a worker executes an activity of the resource's workflow.
func (r *recorder) isExecuted() bool {
	d, err := r.Temporal.DescribeWorkflow(r.t.Context(), r.workflow(), "")
	return err == nil && slices.ContainsFunc(d.RawResponse.GetPendingActivities(), func(pending *workflowpb.PendingActivityInfo) bool {
		return pending.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
	})
}

// has reports whether a workflow's history has at least n events of a type.
func (r *recorder) has(workflowID string, event enumspb.EventType, n int) func() bool {
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
	r.wait("the informer runs", func() bool {
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
