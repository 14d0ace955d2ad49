package delta

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/workflows"
)

const (
	dispatchBatch       = 256
	dispatchConcurrency = 32
	// dispatchLease is how long a leased row is left alone: if its dispatcher dies, another one takes it then.
	dispatchLease = 30 * time.Second
	// dispatchPoll is the net under notifications: how often a kind is asked for due rows that nobody announced.
	dispatchPoll       = 5 * time.Second
	dispatchRPCTimeout = 10 * time.Second
	// dispatchGrace is how long calls of Temporal go on that were under way when the client was stopped.
	dispatchGrace      = time.Second
	maxDispatchBackoff = 10 * time.Second
	dispatchRetry      = 5 * time.Second
)

// dispatcher empties the outbox of one kind: it leases rows that are due, wakes their workflows, and settles the lease.
// Any number of clients may do so for the same kind.
//
// Dying before the wake-up leaves a lease that runs out; dying after it repeats a wake-up, which is harmless.
type dispatcher struct {
	kind    string
	pool    *pgxpool.Pool
	client  client.Client
	names   names
	hashIDs bool
	// eager has workflows begin on this client's own worker, without a way through Temporal's task queue.
	eager bool
	// ref is that of the kind: a resource's has its id too.
	ref   func() activities.Ref
	log   *slog.Logger
	lease time.Duration
	poll  time.Duration
	wakes chan struct{}
	// batchSize above 1 has batches started, which wait for batchWait to be filled.
	batchSize int
	batchWait time.Duration
	// leased are batches that informs of this client have leased.
	leased *leasedBatches
	// unsettled are batches that were started lately, whose leases are to be settled.
	unsettledMu sync.Mutex
	unsettled   []startedBatch
}

// wake has the dispatcher look at once. It never blocks.
func (d *dispatcher) wake() {
	select {
	case d.wakes <- struct{}{}:
	default:
	}
}

func (d *dispatcher) run(ctx context.Context) {
	backoff := time.Duration(0)
	dispatch := d.dispatch
	if d.batchSize > 1 {
		dispatch = d.dispatchBatches
		var leased sync.WaitGroup
		leased.Go(func() { d.startLeased(ctx) })
		defer d.settleStarted(ctx, 0)
		defer leased.Wait()
	}
	for ctx.Err() == nil {
		full, err := dispatch(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			backoff = min(max(2*backoff, time.Second), maxDispatchBackoff)
			d.log.Warn("dispatching failed; nothing is lost, it is tried again", "kind", d.kind, "error", err, "retry_in", backoff)
			select {
			case <-ctx.Done():
			case <-time.After(backoff):
			}
			continue
		}
		// Also after a start of what was leased has failed: its rows were due at once, and have been started by now.
		backoff = 0
		d.leased.setOpen(true)
		if full {
			continue
		}
		// Spread, so that the clients of a fleet do not ask in step.
		poll := time.NewTimer(d.poll/2 + rand.N(d.poll)) //nolint:gosec // spread, not secrecy
		select {
		case <-ctx.Done():
		case <-d.wakes:
			if d.batchSize > 1 {
				d.fill(ctx)
			}
		case <-poll.C:
		}
		poll.Stop()
	}
}

// dispatch handles one batch and tells whether there is likely more.
func (d *dispatcher) dispatch(ctx context.Context) (full bool, err error) {
	due, err := db.New().LeaseDue(ctx, d.pool, db.LeaseDueParams{
		Kind:             d.kind,
		Lease:            d.lease,
		WorkflowIDPrefix: d.names.resource(d.kind, ""),
		HashIds:          d.hashIDs,
		Batch:            dispatchBatch,
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	return len(due) == dispatchBatch, d.wakeLeased(ctx, due)
}

// wakeLeased wakes the workflows of rows that were leased together, and settles their leases.
func (d *dispatcher) wakeLeased(ctx context.Context, due []db.LeaseDueRow) error {
	var mu sync.Mutex
	var woken, left []int64
	var failure error
	var group errgroup.Group
	group.SetLimit(dispatchConcurrency)
	for _, row := range due {
		group.Go(func() error {
			err := d.wakeWorkflow(ctx, row)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failure = err
				left = append(left, row.ID)
			} else {
				woken = append(woken, row.ID)
			}
			return nil
		})
	}
	_ = group.Wait()

	// Also while stopping: what was not woken should not wait for the lease to run out.
	stopping := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchRPCTimeout)
	defer cancel()
	if err := d.settleWoken(ctx, woken, due[0].DispatchAt); err != nil {
		return err
	}
	retry := time.Duration(0)
	if failure != nil && len(woken) > 0 && !stopping {
		// It is these rows, not Temporal: the others do not wait for them.
		d.log.Warn("waking some workflows failed; it is tried again", "kind", d.kind, "failed", len(left), "error", failure)
		retry, failure = dispatchRetry, nil
	}
	if err := d.returnLease(ctx, left, due[0].DispatchAt, retry); err != nil {
		return err
	}
	return failure
}

// settleWoken moves rows on that this dispatcher leased and woke.
func (d *dispatcher) settleWoken(ctx context.Context, ids []int64, leasedUntil *time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	return db.New().SettleWoken(ctx, d.pool, db.SettleWokenParams{
		Ids: ids, LeasedUntil: leasedUntil, Net: activities.DispatchNet, Grace: activities.DueGrace,
	})
}

// returnLease has rows leased again after some time.
func (d *dispatcher) returnLease(ctx context.Context, ids []int64, leasedUntil *time.Time, after time.Duration) error {
	if len(ids) == 0 {
		return nil
	}
	return db.New().ReturnLease(ctx, d.pool, db.ReturnLeaseParams{Ids: ids, LeasedUntil: leasedUntil, After: after})
}

func (d *dispatcher) wakeWorkflow(ctx context.Context, row db.LeaseDueRow) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// What is under way may end: an eager start whose answer is lost has its workflow wait for a timeout.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchRPCTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(dispatchGrace, cancel) })
	defer stop()
	ref := d.ref()
	if row.HashedID != nil {
		ref.HashedID = *row.HashedID
	} else {
		ref.ObjectID = row.ObjectID
	}
	options := startOptions(d.names, ref, row.Namespace, row.State, int(row.Priority))
	if row.Generation == 1 && row.State == deltatype.ResourceStateScheduled {
		if done, err := d.startWorkflow(call, options, ref); done {
			return err
		}
	}
	_, err := d.client.SignalWithStartWorkflow(call, options.ID, workflows.WakeSignal, nil, options, workflows.ResourceName, ref)
	return err
}

// startWorkflow starts the workflow of a new row, which most likely has none: that costs Temporal less than a signal, too.
// It is not done if there is one, which a signal is to tell then.
func (d *dispatcher) startWorkflow(ctx context.Context, options client.StartWorkflowOptions, ref activities.Ref) (done bool, err error) {
	options.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	options.WorkflowExecutionErrorWhenAlreadyStarted = true
	options.EnableEagerStart = d.eager
	_, err = d.client.ExecuteWorkflow(ctx, options, workflows.ResourceName, ref)
	return !temporal.IsWorkflowExecutionAlreadyStartedError(err), err
}
