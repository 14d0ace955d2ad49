package delta_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/workflows"
)

// user acts on some resources as users, operators and time do. Only this user acts on them, so it knows their history.
type user struct {
	*storm
	client *delta.Client
	random *rand.Rand
	ids    []string
	// plans are the possible plans of an object: the last informed one, and later ones whose inform has an unknown result.
	plans map[string][]string
	// informed are resources with a successful inform. Without one, because connections were cut, an object may have no row.
	informed map[string]bool
	// deleted and removed are resources that a command has deleted. Time may have removed the rows of removed ones.
	deleted, removed map[string]bool
}

// actPatience bounds a user's wait for an answer. It is longer than any silence or lock, because an abandoned command could still be executed later.
const actPatience = time.Minute

// act performs one action after another.
func (u *user) act(until time.Time) {
	for time.Now().Before(until) && !u.t.Failed() {
		u.acts.Add(1)
		// Some resources get many actions, others few: these lose attempts before a change resets the counter.
		id := u.ids[u.random.IntN(1+u.random.IntN(len(u.ids)))]
		ctx, cancel := context.WithTimeout(context.Background(), actPatience)
		err := u.actOn(ctx, u.random.IntN(24), id)
		cancel()
		if err != nil {
			u.t.Errorf("an act on %s failed: %v", id, err)
		}
		time.Sleep(time.Duration(u.random.IntN(60)) * time.Millisecond)
	}
}

func (u *user) actOn(ctx context.Context, dice int, id string) error {
	switch dice {
	case 0:
		_, err := u.client.Invalidate(ctx, u.object(account{Name: id}))
		return ignoreStateError(err)
	case 1:
		_, err := u.client.Retry(ctx, u.kind, id)
		return ignoreStateError(err)
	case 2:
		u.deleted[id] = true
		_, err := u.client.Delete(ctx, u.kind, id)
		return ignoreStateError(err)
	case 3:
		_, err := u.client.Pause(ctx, u.kind, id)
		return ignoreStateError(err)
	case 4, 5:
		_, err := u.client.Resume(ctx, u.kind, id)
		return ignoreStateError(err)
	case 6:
		return u.sendSignal(ctx, id, workflows.WakeSignal)
	case 7:
		return u.sendSignal(ctx, id, string(activities.CommandInvalidate))
	case 8:
		// The timer has fired, and leases and graces have expired.
		_, err := u.Pool.Exec(ctx, `UPDATE delta_resource SET due_at = CASE state WHEN 'synced' THEN now() ELSE due_at END, dispatch_at = now()
			WHERE object_id = $1 AND state NOT IN ('degraded', 'deleted')`, id)
		return err
	case 9:
		// Its retention has passed.
		u.removed[id] = true
		_, err := u.Pool.Exec(ctx, `UPDATE delta_resource SET due_at = now(), dispatch_at = now(), synced_at = now() - interval '1 year'
			WHERE object_id = $1 AND state = 'deleted'`, id)
		return err
	case 10:
		return u.endWorkflow(ctx, id)
	case 11:
		u.lockRow(id)
	case 12:
		return u.informMany(ctx)
	default:
		return u.inform(ctx, id)
	}
	return nil
}

// sendSignal sends a signal to a resource's own workflow, and starts the workflow if it is not running, like the guide's command.
func (u *user) sendSignal(ctx context.Context, id, signal string) error {
	_, err := u.Temporal.SignalWithStartWorkflow(ctx, u.resourceWorkflow(id), signal, nil,
		client.StartWorkflowOptions{ID: u.resourceWorkflow(id), TaskQueue: u.Prefix + "/" + u.kind},
		workflows.ResourceName, map[string]any{"kind": u.kind, "object_id": id})
	return err
}

// ignoreStateError drops errors about the state of a resource.
func ignoreStateError(err error) error {
	if errors.Is(err, delta.ErrNotFound) || errors.As(err, new(*delta.StateError)) {
		return nil
	}
	return err
}

// plan returns a new plan, or the one that an object has.
func (u *user) plan(id string) string {
	if known := u.plans[id]; len(known) == 1 && u.random.IntN(4) == 0 {
		return known[0]
	}
	return u.storm.plans.next("")
}

// notePlan notes a plan that was informed, or whose inform has an unknown result.
func (u *user) notePlan(id, plan string, err error) {
	if err == nil {
		u.plans[id], u.informed[id], u.deleted[id], u.removed[id] = nil, true, false, false
	}
	u.plans[id] = append(u.plans[id], plan)
}

// pickClient returns the client that informs: that of a program which only informs, or of a process of the storm.
func (u *user) pickClient() *delta.Client {
	if n := u.random.IntN(12); n < len(u.processes) {
		return u.process(n).client
	}
	return u.client
}

func (u *user) inform(ctx context.Context, id string) error {
	c, plan := u.pickClient(), u.plan(id)
	_, err := c.Inform(ctx, u.object(account{Name: id, Plan: plan}), &delta.InformOpts{MaxAttempts: stormAttempts})
	u.notePlan(id, plan, err)
	return u.mayFail(c, err)
}

// informMany informs some resources of the user together.
func (u *user) informMany(ctx context.Context) error {
	var objects []delta.Object
	plans := map[string]string{}
	for _, id := range u.ids[:1+u.random.IntN(len(u.ids))] {
		plans[id] = u.plan(id)
		objects = append(objects, u.object(account{Name: id, Plan: plans[id]}))
	}
	c := u.pickClient()
	_, err := c.InformMany(ctx, objects, &delta.InformOpts{MaxAttempts: stormAttempts})
	for id, plan := range plans {
		u.notePlan(id, plan, err)
	}
	return u.mayFail(c, err)
}

// mayFail drops errors of clients whose connections are cut.
func (u *user) mayFail(c *delta.Client, err error) error {
	if c != u.client {
		return nil
	}
	return err
}

// endWorkflow terminates, cancels or resets the workflow that attends to a resource. It is no error if there is none, or if it has ended.
func (u *user) endWorkflow(ctx context.Context, id string) error {
	workflowID := u.resourceWorkflow(id)
	if row := u.row(u.kind, id); row != nil && row.WorkflowID != "" {
		workflowID = row.WorkflowID
	}
	switch u.random.IntN(3) {
	case 0:
		_ = u.Temporal.TerminateWorkflow(ctx, workflowID, "", "the storm")
	case 1:
		_ = u.Temporal.CancelWorkflow(ctx, workflowID, "")
	case 2:
		_ = u.resetWorkflow(workflowID)
	}
	return nil
}

// lockRow holds a row lock in another transaction for a while.
func (u *user) lockRow(id string) {
	hold := time.Duration(u.random.IntN(1500)) * time.Millisecond
	if u.long && u.random.IntN(10) == 0 {
		hold += 11 * time.Second // longer than an execution waits for the lock
	}
	locked := make(chan struct{})
	u.faults.Go(func() {
		defer close(locked)
		tx, err := u.Pool.Begin(context.Background())
		if err != nil {
			u.t.Errorf("a transaction could not begin: %v", err)
			return
		}
		defer tx.Rollback(context.Background()) //nolint:errcheck // it only holds locks
		if _, err := tx.Exec(context.Background(), "SELECT FROM delta_resource WHERE object_id = $1 FOR UPDATE", id); err != nil {
			u.t.Errorf("a row could not be locked: %v", err)
			return
		}
		locked <- struct{}{}
		time.Sleep(hold)
	})
	<-locked
}
