package delta_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	sdktemporal "go.temporal.io/sdk/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/workflows"
)

// If search attributes may not be created, a warning says so, and everything else works.
func TestWithoutSearchAttributesAllElseWorks(t *testing.T) {
	t.Parallel()
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if strings.Contains(method, "OperatorService") {
					return status.Error(codes.PermissionDenied, "operators only")
				}
				return invoke(ctx, method, in, out, cc, opts...)
			}))
	}))}
	var logs logBuffer
	config := h.config(with(&controller[account]{}))
	config.Logger = logs.logger()
	c := h.start(config)
	require.Contains(t, logs.String(), "no search attributes")
	require.Contains(t, logs.String(), "operators only")
	require.Contains(t, logs.String(), "temporal operator search-attribute create")
	row, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	described, err := h.Temporal.DescribeWorkflow(t.Context(), row.WorkflowID, "")
	require.NoError(t, err)
	require.NotContains(t, described.RawResponse.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields(), "DeltaState")

	h.startBySignal("bob", map[string]any{"kind": "account", "object_id": "bob", "search_attributes": true})
	h.eventually("account", "bob", synced(1))
	require.Empty(t, h.attributesOf("bob"), "the input of a workflow comes from the caller, which cannot know")
}

// startBySignal starts the workflow of an account by a signal with an inform, as a program other than Delta does.
func (h *harness) startBySignal(name string, input map[string]any) {
	h.t.Helper()
	_, err := h.Temporal.SignalWithStartWorkflow(h.t.Context(), h.Prefix+"/account/"+name, "inform",
		map[string]any{"object": map[string]any{"name": name, "plan": "free"}},
		client.StartWorkflowOptions{TaskQueue: h.Prefix + "/account"}, workflows.ResourceName, input)
	require.NoError(h.t, err)
}

// attributesOf returns Delta's search attributes of the workflow of an account.
func (h *harness) attributesOf(name string) map[string]string {
	h.t.Helper()
	described, err := h.Temporal.DescribeWorkflow(h.t.Context(), h.Prefix+"/account/"+name, "")
	require.NoError(h.t, err)
	found := map[string]string{}
	for _, key := range []sdktemporal.SearchAttributeKeyKeyword{workflows.KindAttribute, workflows.NamespaceAttribute, workflows.StateAttribute} {
		if value, ok := described.TypedSearchAttributes.GetKeyword(key); ok {
			found[key.GetName()] = value
		}
	}
	return found
}

// A workflow that a signal starts is found by kind, namespace and state like any other, whatever search attributes its caller has set, and also in
// its next run.
func TestAWorkflowThatASignalStartsHasAllSearchAttributes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
		if r.Object.Plan == "fails" {
			return errors.New("always")
		}
		return nil
	}})))
	wanted := func(state string) map[string]string {
		return map[string]string{"DeltaKind": "account", "DeltaNamespace": "default", "DeltaState": state}
	}
	for name, input := range map[string]map[string]any{
		"ann": {"kind": "account", "object_id": "ann"},
		"bob": {"kind": "account", "object_id": "bob", "search_attributes": true},
		"cem": {"kind": "account", "object_id": "cem", "search_attributes": false},
	} {
		h.startBySignal(name, input)
		h.eventually("account", name, synced(1))
		until(t, func() bool { return maps.Equal(h.attributesOf(name), wanted("synced")) }, "the attributes of %s", name)
	}

	_, err := c.Inform(t.Context(), account{Name: "ann", Plan: "fails"}, nil)
	require.NoError(t, err)
	until(t, func() bool { return maps.Equal(h.attributesOf("ann"), wanted("failed")) }, "the attributes follow the state")
}

// removeAttributes removes Delta's search attributes from a Temporal namespace, and waits until Temporal's cache has noticed.
func removeAttributes(t *testing.T, temporal client.Client) {
	t.Helper()
	keys := []string{workflows.KindAttribute.GetName(), workflows.NamespaceAttribute.GetName(), workflows.StateAttribute.GetName()}
	_, err := temporal.OperatorService().RemoveSearchAttributes(t.Context(), &operatorservice.RemoveSearchAttributesRequest{
		Namespace: "default", SearchAttributes: keys,
	})
	require.NoError(t, err)
	until(t, func() bool {
		_, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			TaskQueue: "nobody polls it", TypedSearchAttributes: sdktemporal.NewSearchAttributes(workflows.StateAttribute.ValueSet("synced")),
		}, "probe")
		return errors.As(err, new(*serviceerror.InvalidArgument))
	})
}

// A workflow that was started with search attributes writes them when the state changes. If they were removed, and may not be created again, Temporal
// refuses that for ever: then the workflow is replaced by one without. An attempt in a local activity would be repeated with the failing task.
func TestAWorkflowWhoseSearchAttributesWereRemovedIsReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var refused atomic.Bool
	temporal := startTemporal(t).dial(grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if strings.HasSuffix(method, "/AddSearchAttributes") && refused.Load() {
				return status.Error(codes.PermissionDenied, "operators only")
			}
			return invoke(ctx, method, in, out, cc, opts...)
		}))
	h.Temporal, h.TemporalNamespace = temporal, ""
	config := h.config(with(&controller[rated]{work: func(_ context.Context, r *delta.Resource[rated]) error {
		if r.Object.Plan == "fails" && r.Attempt == 1 {
			return errors.New("once") // so that its state is another one, which is an attribute
		}
		return nil
	}}))
	config.MaintenanceJobInterval = time.Second
	c := h.client(config)
	c.SetTiming(0, 200*time.Millisecond, 0)
	require.NoError(t, c.Start(t.Context()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	_, err := c.Inform(t.Context(), rated{account{Name: "ann"}}, nil)
	require.NoError(t, err)
	id := h.eventually("rated", "ann", synced(1)).WorkflowID
	h.awaitEvent(id, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
	refused.Store(true)
	removeAttributes(t, temporal)

	_, err = c.Inform(t.Context(), rated{account{Name: "ann", Plan: "fails"}}, nil)
	require.NoError(t, err)
	failed := h.awaitEvent(id, func(e *historypb.HistoryEvent) bool { return e.GetWorkflowTaskFailedEventAttributes() != nil })
	require.Equal(t, enumspb.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES, failed.GetWorkflowTaskFailedEventAttributes().GetCause())
	// Time passes: the row is late. If the dispatcher's calls of Temporal are not answered, it tries again after twice the time that the row is late.
	h.exec("UPDATE delta_resource SET due_at = now() - interval '61 seconds', dispatch_at = now() WHERE state = 'failed'")
	row := h.eventually("rated", "ann", synced(2))
	require.Equal(t, 2, row.Attempt)
	started := h.history(id)[0].GetWorkflowExecutionStartedEventAttributes()
	require.Empty(t, started.GetSearchAttributes().GetIndexedFields())

	// The new workflow needs no help.
	_, err = c.Inform(t.Context(), rated{account{Name: "ann"}}, nil)
	require.NoError(t, err)
	h.eventually("rated", "ann", synced(3))
	require.Equal(t, started.GetOriginalExecutionRunId(), h.history(id)[0].GetWorkflowExecutionStartedEventAttributes().GetOriginalExecutionRunId())
}
