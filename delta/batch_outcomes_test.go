package delta_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/soak"
)

// brokenError panics if it is nil, like a pointer method that reads a field.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// A nil pointer that is returned as an error is not nil.
func TestAResultWhoseMethodsPanicFailsItsResourceOnly(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(withBulk(&bulk{batch: func(_ context.Context, all []*delta.Resource[batched]) []error {
		results := make([]error, len(all))
		for i, r := range all {
			if r.ObjectID == "ok07" {
				var broken *brokenError
				results[i] = broken
			}
		}
		return results
	}})))
	_, err := c.InformMany(t.Context(), manyBatched(names("ok", 40)...), nil)
	require.NoError(t, err)
	for _, name := range names("ok", 40) {
		row := h.eventually("batched", name, synced(1))
		if name != "ok07" {
			require.Equal(t, 1, row.Attempt)
			require.Empty(t, row.Errors, "other members are unaffected")
			continue
		}
		require.Equal(t, 2, row.Attempt)
		require.Contains(t, row.Errors[0].Error, "panic in the methods of the error that was returned, a *delta_test.brokenError")
		require.Contains(t, row.Errors[0].Trace, "batch_outcomes_test.go")
	}
}

// slowly waits an hour between attempts.
type slowly struct{ account }

func (slowly) Kind() string { return "slowly" }
func (slowly) Settings() delta.ObjectSettings {
	s := batchSettings(50)
	s.RetryPolicy = delta.RetryPolicy{InitialInterval: time.Hour, MaximumInterval: time.Hour}
	return s
}

// If many members fail, the cause is not in the members. Own workflows for all of them would be too many at each retry.
func TestFewFailedMembersLeaveTheirBatchAndManyDoNot(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var mu sync.Mutex
	second := map[string]string{} // workflow of the second attempt, by resource
	c := h.start(h.config(with(&controller[slowly]{work: func(ctx context.Context, r *delta.Resource[slowly]) error {
		if r.Attempt == 1 {
			return errors.New("down for all")
		}
		mu.Lock()
		defer mu.Unlock()
		second[r.ObjectID] = activity.GetInfo(ctx).WorkflowExecution.ID
		return nil
	}})))
	all := names("m", 50)
	_, err := c.InformMany(t.Context(), makeObjects(func(a account) slowly { return slowly{a} }, all...), nil)
	require.NoError(t, err)
	var batch string // all are leased together; some of them leave it
	until(t, func() bool {
		require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT coalesce(min(workflow_id), '') FROM delta_resource WHERE workflow_id LIKE '%:batch/%'").Scan(&batch))
		return batch != ""
	})
	own := func(name string) string { return h.Prefix + "/slowly/" + name }
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'failed' AND workflow_id = $1 || object_id", own("")) == 20
	}, "singles can be seen waiting")
	// Outcomes of a batch are written several times a second: these resources may fail later.
	until(t, func() bool {
		return h.countRows("SELECT count(*) FROM delta_resource WHERE state = 'failed' AND workflow_id = $1 AND dispatch_at = due_at", batch) == 30
	}, "the others are dispatched when they are due")

	// An hour later.
	alone := map[string]bool{}
	for _, name := range all {
		alone[name] = h.row("slowly", name).WorkflowID == own(name)
	}
	h.exec("UPDATE delta_resource SET due_at = now(), dispatch_at = now() WHERE workflow_id = $1", batch)
	h.exec("UPDATE delta_resource SET due_at = now() WHERE workflow_id <> $1 AND state = 'failed'", batch)
	for _, name := range all {
		if alone[name] {
			h.signal("slowly", name)
		}
	}
	for _, name := range all {
		require.Equal(t, 2, h.eventually("slowly", name, synced(1)).Attempt)
		mu.Lock()
		require.Equal(t, alone[name], second[name] == own(name))
		require.Equal(t, !alone[name], strings.Contains(second[name], ":batch/") && second[name] != batch)
		mu.Unlock()
	}
}

// Resources that were synced together expire at different times, but in batches, which sync them again together.
func TestResourcesSyncedTogetherExpireApart(t *testing.T) {
	soak.Long(t)
	inEachMode(t, func(t *testing.T, g mode) {
		config := g.config(g.controller(func(context.Context, job) error { return nil }))
		const expiry = 100 * time.Minute
		config.Namespaces = map[string]delta.NamespaceConfig{"default": {MaxWorkers: 20, ResourceExpiry: expiry}}
		c := g.start(config)
		g.inform(c, nil, names("m", 50)...)
		g.informEach(c, nil, names("n", 30)...)
		waits := map[time.Duration]bool{}
		byWorkflow := map[string]time.Duration{}
		for _, name := range append(names("m", 50), names("n", 30)...) {
			row := g.awaitRow(name, synced(1))
			wait := row.DueAt.Sub(*row.SyncedAt)
			require.GreaterOrEqual(t, wait, expiry*95/100)
			require.LessOrEqual(t, wait, expiry)
			waits[wait] = true
			if there, ok := byWorkflow[row.WorkflowID]; ok {
				require.Equal(t, there, wait, "members expire together")
			}
			byWorkflow[row.WorkflowID] = wait
		}
		if g.kind == "each" {
			require.Len(t, byWorkflow, 80)
			require.Greater(t, len(waits), 70)
		} else {
			require.Equal(t, byWorkflow[g.row(g.kind, "m00").WorkflowID], byWorkflow[g.row(g.kind, "m49").WorkflowID])
			require.Len(t, waits, len(byWorkflow), "one per batch")
		}
	})
}
