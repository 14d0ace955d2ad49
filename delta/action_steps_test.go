package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// costs is a client whose steps are counted.
type costs struct {
	mode
	c *delta.Client
	n int
}

func singleMode() mode {
	return modeFor(0, func(a account) each { return each{a} }, func(o each) account { return o.account })
}

func startCosts(t *testing.T, g mode, work func(context.Context, job) error) *costs {
	t.Helper()
	g.harness = newHarness(t)
	config := g.config(g.controller(work))
	config.Namespaces = map[string]delta.NamespaceConfig{
		"default": {MaxWorkers: 100}, "expires": {MaxWorkers: 100, ResourceExpiry: 500 * time.Millisecond},
		"removed": {MaxWorkers: 100, SyncedResourceRetentionPeriod: 300 * time.Millisecond},
	}
	config.Kinds = map[string]delta.ObjectSettings{g.kind: {RetryPolicy: delta.RetryPolicy{InitialInterval: 50 * time.Millisecond, MaximumInterval: 100 * time.Millisecond}}}
	return &costs{mode: g, c: g.start(config)}
}

func succeed(context.Context, job) error { return nil }

// next informs new resources, and waits until they are synced. It returns the name of the first, and its workflow.
func (c *costs) next(opts *delta.InformOpts, count int) (name, workflowID string) {
	c.t.Helper()
	c.n++
	all := names(fmt.Sprintf("r%d-", c.n), count)
	c.inform(c.c, opts, all...)
	for _, name := range all {
		c.awaitRow(name, func(r *deltatype.ResourceRow) bool { return r == nil && opts != nil || r != nil && r.SyncCount > 0 })
	}
	return all[0], c.resourceWorkflow(all[0])
}

// toTimer waits for the nth timer of a workflow, and returns the actions up to it.
func (c *costs) toTimer(workflowID string, n int) (a actions) {
	c.t.Helper()
	until(c.t, func() bool {
		left := n
		history := c.history(workflowID)
		for i, e := range history {
			if e.GetTimerStartedEventAttributes() == nil {
				continue
			}
			if left--; left == 0 {
				a = countActions(history[:i+1])
				return true
			}
		}
		return false
	})
	return a
}

func costOfNew(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), succeed)
	return func() actions {
		_, id := c.next(nil, 1)
		return c.toTimer(id, 1)
	}
}

func costOfChange(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), succeed)
	return func() actions {
		name, id := c.next(nil, 1)
		before := c.toTimer(id, 1)
		c.informPlan(c.c, name, "new")
		return c.toTimer(id, 2).minus(before)
	}
}

func costOfUnchanged(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), succeed)
	return func() actions {
		name, id := c.next(nil, 1)
		before := c.toTimer(id, 1)
		c.inform(c.c, nil, name)
		other, _ := c.next(nil, 1) // the dispatcher has come by
		require.NotEqual(t, name, other)
		return countActions(c.history(id)).minus(before)
	}
}

func costOfExpiry(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), succeed)
	return func() actions {
		_, id := c.next(&delta.InformOpts{Namespace: "expires"}, 1)
		before := c.toTimer(id, 2)
		return c.toTimer(id, 3).minus(before)
	}
}

func costOfLongExpiry(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), func(context.Context, job) error {
		time.Sleep(activities.MaxLocalAttempt + 100*time.Millisecond)
		return nil
	})
	return func() actions {
		_, id := c.next(&delta.InformOpts{Namespace: "expires"}, 1)
		before := c.toTimer(id, 2)
		return c.toTimer(id, 3).minus(before)
	}
}

// startFailing starts a client whose resources fail three times.
func startFailing(t *testing.T, g mode) *costs {
	t.Helper()
	c := startCosts(t, g, func(_ context.Context, j job) error {
		if j.Attempt < 4 {
			return errors.New("not yet")
		}
		return nil
	})
	return c
}

func costOfFailure(t *testing.T) func() actions {
	c := startFailing(t, singleMode())
	return func() actions {
		_, id := c.next(nil, 1)
		before := c.toTimer(id, 2)
		return c.toTimer(id, 3).minus(before)
	}
}

func costOfSuccess(t *testing.T) func() actions {
	c := startFailing(t, singleMode())
	return func() actions {
		_, id := c.next(nil, 1)
		before := c.toTimer(id, 3)
		return c.toTimer(id, 4).minus(before)
	}
}

func costOfLongWork(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), func(context.Context, job) error {
		time.Sleep(activities.MaxLocalAttempt + 100*time.Millisecond)
		return nil
	})
	return func() actions {
		_, id := c.next(nil, 1)
		return c.toTimer(id, 1)
	}
}

func costOfRemoval(t *testing.T) func() actions {
	c := startCosts(t, singleMode(), succeed)
	return func() actions {
		_, id := c.next(&delta.InformOpts{Namespace: "removed"}, 1)
		before := c.toTimer(id, 1)
		c.awaitWorkflowEnd(id)
		return countActions(c.history(id)).minus(before)
	}
}

func batchedMode() mode {
	return modeFor(0, func(a account) batched { return batched{a} }, func(o batched) account { return o.account })
}

func costOfBatch(t *testing.T) func() actions {
	c := startCosts(t, batchedMode(), succeed)
	return func() actions {
		name, _ := c.next(nil, 50)
		return c.toTimer(c.row(c.kind, name).WorkflowID, 1)
	}
}

func costOfBatchExpiry(t *testing.T) func() actions {
	c := startCosts(t, batchedMode(), succeed)
	return func() actions {
		name, _ := c.next(&delta.InformOpts{Namespace: "expires"}, 50)
		id := c.row(c.kind, name).WorkflowID
		c.awaitWorkflowEnd(id)
		return countActions(c.history(id))
	}
}

func costOfLeaving(t *testing.T) func() actions {
	c := startCosts(t, batchedMode(), func(_ context.Context, j job) error {
		if strings.HasSuffix(j.Object.Name, "-00") && j.Attempt == 1 {
			return errors.New("once")
		}
		return nil
	})
	return func() actions {
		name, id := c.next(nil, 50)
		if c.row(c.kind, name).WorkflowID != id {
			return actions{} // another batch has it, as may be on a busy machine
		}
		return c.toTimer(id, 1)
	}
}

func costOfPass(t *testing.T) func() actions {
	h := newHarness(t)
	h.start(h.config(with(&controller[listed]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan listed, error) {
		return sendAll(ctx, listed{Name: "one"}, listed{Name: "two"}), nil
	}})))
	return func() actions {
		id := h.scheduledRun("inform:listed")
		h.awaitWorkflowEnd(id)
		return countActions(h.history(id))
	}
}

func costOfShards(t *testing.T) func() actions {
	h := newHarness(t)
	config := h.config(addTo[regionalHourly](newRegions(hourlyIn, map[string][]string{"eu": names("e", 2), "us": names("u", 2)})))
	config.Kinds = map[string]delta.ObjectSettings{"regional-hourly": {InformInterval: 6 * time.Second}} // over half of which the two passes are spread
	h.start(config)
	return func() actions {
		id := h.scheduledRun("inform:regional-hourly")
		h.awaitWorkflowEnd(id)
		sum := countActions(h.history(id))
		for _, child := range h.childWorkflows(id) {
			h.awaitWorkflowEnd(child.GetWorkflowId())
			sum = sum.plus(countActions(h.history(child.GetWorkflowId())))
		}
		return sum
	}
}
