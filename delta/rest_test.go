package delta_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// awaitResourceEnd waits until a resource's workflow has completed: a settled resource without a timer costs Temporal nothing.
func (h *harness) awaitResourceEnd(kind, id string) {
	h.t.Helper()
	h.awaitWorkflowEnd(h.Prefix + "/" + kind + "/" + id)
}

// awaitWorkflowEnd waits until a workflow has completed.
func (h *harness) awaitWorkflowEnd(workflowID string) {
	h.t.Helper()
	until(h.t, func() bool {
		found, err := h.Temporal.DescribeWorkflow(context.Background(), workflowID, "")
		require.NoError(h.t, err)
		return found.Status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	})
}

func isGone(r *deltatype.ResourceRow) bool { return r == nil }

func TestAResourceExpiresAndIsSyncedAgain(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	worked := make(chan *deltatype.ResourceRow, 100)
	config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
		worked <- r.ResourceRow
		return nil
	}}))
	config.Namespaces = map[string]delta.NamespaceConfig{"short": {MaxWorkers: 1, ResourceExpiry: 400 * time.Millisecond}}
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{Namespace: "short"})
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), account{Name: "bob"}, nil)
	require.NoError(t, err)

	var last *deltatype.ResourceRow
	for n := int64(1); n <= 3; {
		r := <-worked
		if r.ObjectID != "ann" {
			require.EqualValues(t, 1, r.Generation, "resources of other namespaces do not expire")
			continue
		}
		require.Equal(t, n, r.Generation, "each expiry starts a generation")
		require.Equal(t, 1, r.Attempt)
		require.Equal(t, n-1, r.SyncedGeneration)
		if last != nil {
			require.GreaterOrEqual(t, r.AttemptedAt.Sub(*last.AttemptedAt), 400*time.Millisecond)
		}
		last, n = r, n+1
	}
	row := h.eventually("account", "bob", synced(1))
	require.Equal(t, 24*time.Hour, row.DueAt.Sub(*row.SyncedAt), "the default retention")
}

func TestRowsAreRemovedAfterTheirRetention(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
		switch r.Object.Plan {
		case "delete":
			return delta.ResourceDelete(nil)
		case "degrade":
			return delta.ResourceDegrade(errors.New("no"))
		}
		return nil
	}}))
	config.Namespaces = map[string]delta.NamespaceConfig{"short": {
		MaxWorkers:                      1,
		SyncedResourceRetentionPeriod:   200 * time.Millisecond,
		DegradedResourceRetentionPeriod: 300 * time.Millisecond,
		DeletedResourceRetentionPeriod:  400 * time.Millisecond,
	}}
	c := h.start(config)
	events, cancel := c.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed, delta.EventCategoryObjectDeleted)
	defer cancel()
	opts := &delta.InformOpts{Namespace: "short", MaxAttempts: 1}
	for id, state := range map[string]deltatype.ResourceState{
		"sync": deltatype.ResourceStateSynced, "degrade": deltatype.ResourceStateDegraded, "delete": deltatype.ResourceStateDeleted,
	} {
		_, err := c.Inform(t.Context(), account{Name: id, Plan: id}, opts)
		require.NoError(t, err)
		row := nextEvent(t, events).Resource // a busy machine may read the row only after its removal
		require.Equal(t, id, row.ObjectID)
		require.Equal(t, state, row.State)
	}
	for _, id := range []string{"sync", "degrade", "delete"} {
		h.eventually("account", id, isGone)
		h.awaitResourceEnd("account", id)
	}

	// The object can be informed again.
	result, err := c.Inform(t.Context(), account{Name: "sync", Plan: "sync"}, nil)
	require.NoError(t, err)
	require.False(t, result.AlreadyExists)
	require.EqualValues(t, 1, result.Resource.Generation)
	h.eventually("account", "sync", synced(1))
}

func TestANegativeRetentionKeepsTheRowAndEndsTheWorkflow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.SyncedResourceRetentionPeriod = -1
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(1))
	require.Nil(t, row.DueAt)
	require.Nil(t, row.DispatchAt)
	h.awaitResourceEnd("account", "ann")

	// A change starts a new run of the workflow.
	_, err = c.Inform(t.Context(), account{Name: "ann", Plan: "new"}, nil)
	require.NoError(t, err)
	h.eventually("account", "ann", synced(2))
}

func TestTheLastClientThatStartsDecidesANamespace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	one, two := h.config(with(&controller[account]{})), h.config(with(&controller[serial]{}))
	one.Namespaces = map[string]delta.NamespaceConfig{"shared": {MaxWorkers: 1, ResourceExpiry: time.Hour}}
	two.Namespaces = map[string]delta.NamespaceConfig{"shared": {MaxWorkers: 1, SyncedResourceRetentionPeriod: 2 * time.Hour}}
	logs := &logBuffer{}
	two.Logger = logs.logger()
	c := h.start(one)
	h.start(two)
	require.Contains(t, logs.String(), "changes the settings of a namespace")
	require.Contains(t, logs.String(), "shared")

	_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{Namespace: "shared"})
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 2*time.Hour, row.DueAt.Sub(*row.SyncedAt))
}

// Dispatchers and workflows leave a due, paused resource alone, even if Temporal has lost its workflow. When resumed, it expires, or its row is
// removed.
func TestAPausedResourceDoesNothingUntilItIsResumed(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		config.Namespaces = map[string]delta.NamespaceConfig{"expires": {MaxWorkers: 10, ResourceExpiry: time.Hour}}
		c := g.client(config)
		c.SetTiming(0, 200*time.Millisecond, 0)
		require.NoError(t, c.Start(t.Context()))
		t.Cleanup(func() { _ = c.Stop(context.Background()) })
		g.inform(c, &delta.InformOpts{Namespace: "expires"}, "expires", "goes-on")
		g.inform(c, nil, "goes", "goes-too")
		var attended []string
		for _, name := range []string{"expires", "goes-on", "goes", "goes-too"} {
			attended = append(attended, g.awaitRow(name, synced(1)).WorkflowID)
		}
		for _, id := range attended {
			g.awaitEvent(id, func(e *historypb.HistoryEvent) bool { return e.GetTimerStartedEventAttributes() != nil })
		}
		for _, name := range []string{"expires", "goes"} {
			_, err := c.Pause(t.Context(), g.kind, name)
			require.NoError(t, err)
		}
		g.terminateWorkflows(attended...)
		g.skipToDispatch(g.kind)
		before := map[string]*deltatype.ResourceRow{"expires": g.row(g.kind, "expires"), "goes": g.row(g.kind, "goes")}
		g.awaitRow("goes-on", func(r *deltatype.ResourceRow) bool { return synced(2)(r) && r.SyncCount == 2 })
		g.awaitRow("goes-too", isGone) // so the dispatcher has run
		for name, row := range before {
			require.Equal(t, row, g.row(g.kind, name))
			_, err := c.Resume(t.Context(), g.kind, name)
			require.NoError(t, err)
		}
		g.awaitRow("expires", func(r *deltatype.ResourceRow) bool { return synced(2)(r) && r.SyncCount == 2 })
		g.awaitRow("goes", isGone)
	})
}
