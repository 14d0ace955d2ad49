package delta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// leaseSize is how many rows one statement leases for single workflows.
	leaseSize = 256
	// startsAtOnce and batchesAtOnce bound the concurrent calls of Temporal for single workflows and for batches.
	startsAtOnce  = 32
	batchesAtOnce = 8
	// dispatchPoll is how often a kind is polled for due rows without a notification.
	dispatchPoll       = 5 * time.Second
	dispatchRPCTimeout = 10 * time.Second
	maxDispatchBackoff = 10 * time.Second
	// firstStartBackoff and maxStartBackoff bound the backoff of a row whose single workflow cannot be started.
	firstStartBackoff = time.Second
	maxStartBackoff   = 10 * time.Minute
	// largestInBatch bounds the stored size of an object in a batch, in bytes, because all objects of a batch are in memory
	// together.
	largestInBatch = 64 << 10
	// longestRound is how long a round goes on. Then rows of new snoozes are put off, and the context is checked.
	longestRound = time.Second
	// leaseRounds is how many leases begin with the most urgent rows before one begins with the least urgent, so that those
	// do not wait for ever.
	leaseRounds = 8
)

// dispatcher empties the outbox of one kind: it leases due rows, and wakes their workflows. Any number of clients may do so
// for the same kind.
//
// If it dies before the wake-up, the lease expires. If it dies after it, the wake-up is repeated, which is harmless.
type dispatcher struct {
	kind   string
	pool   *pgxpool.Pool
	client client.Client
	// temporalNamespace is the namespace of client, which cannot be read from it.
	temporalNamespace string

	names   temporalNames
	hashIDs bool
	// finalizes reports whether the client's controller of the kind has a Finalizer.
	finalizes bool
	// eager starts workflows on this client's own worker, bypassing Temporal's task queue.
	eager bool
	// ref returns the ref of the kind; the ref of a resource has its id too.
	ref func() activities.Ref
	// dropAttributes leaves search attributes out of ref.
	dropAttributes func()
	log            *slog.Logger
	lease          time.Duration
	poll           time.Duration
	// timeout bounds a round.
	timeout time.Duration
	health  dispatchHealth
	// telemetry counts woken workflows; nil for none.
	telemetry *telemetry
	wakes     chan struct{}
	// hasMany is set while enough rows wait to fill batches at once.
	hasMany atomic.Bool
	limits  *namespaceLimits
	crowd   crowd
	// leftBehind is how soon rows of a namespace with room are looked at again that another dispatcher had locked.
	leftBehind *backoff.Backoff
	// A batchSize above 1 starts batches, which wait up to batchWait to be filled; 1 starts a workflow for each resource; 0
	// leaves it to pace.
	batchSize int
	pace      *pace
	batchWait time.Duration
	// keyed reports whether calls are limited by keys of objects.
	keyed bool
	// parents are the parents that rows of the kind wait for.
	parents parentsWatch
	// touches reports whether resources of the kind are touched when their parents change.
	touches bool

	mu sync.Mutex
	// leases counts leases, for leaseRounds. lookedAt is when the latest began; putOffAt is when rows of snoozed namespaces
	// were last put off.
	leases             int
	lookedAt, putOffAt time.Time
	// keysWait reports whether rows wait for slots of their limit keys, even if the keys are no longer limited. queueing is
	// set while leased rows must wait for such a slot, because there may be many more of them.
	keysWait, queueing bool
	// failures counts the failed starts in a row of a row's workflow.
	failures map[int64]int
}

// wake makes the dispatcher look at once, for a number of rows that a statement has made due. It never blocks.
func (d *dispatcher) wake(due int) {
	if d.fillsBatches(due) {
		d.hasMany.Store(true)
	}
	select {
	case d.wakes <- struct{}{}:
	default:
	}
}

// fillsBatches reports whether a number of due rows fills batches by itself. Then no batch waits for more, and none of the
// rows gets a single workflow first, because that would delay the others.
func (d *dispatcher) fillsBatches(due int) bool {
	switch d.batchSize {
	case 0:
		return due >= 2*fewSingles
	case 1:
		return false
	default:
		return due >= max(d.batchSize/2, 2)
	}
}

func (d *dispatcher) run(ctx context.Context) {
	pauses := backoff.New(time.Second, maxDispatchBackoff)
	for ctx.Err() == nil {
		full, err := d.dispatchRound(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait := pauses.Delay()
			d.log.Warn("dispatching failed; nothing is lost, it is tried again", "kind", d.kind, "error", err, "retry_in", wait)
			_ = backoff.Pause(ctx, wait) // the loop looks at the context
			continue
		}
		pauses.Reset()
		if full {
			continue
		}
		select {
		case <-ctx.Done():
		case <-d.wakes:
		case <-time.After(d.untilNext(ctx)):
		}
	}
}

// dispatchRound is dispatchRows within the timeout of a round. It records the result in health.
func (d *dispatcher) dispatchRound(ctx context.Context) (full bool, err error) {
	d.health.beginRound()
	round, cancel := context.WithTimeoutCause(ctx, d.timeout, fmt.Errorf("it took longer than %s", d.timeout))
	defer cancel()
	full, err = d.dispatchRows(round)
	if ctx.Err() == nil && round.Err() != nil {
		err = errors.Join(context.Cause(round), err) // rows may have been released without an error
	}
	d.health.endRound(err)
	return full, err
}

// waitForBatch waits batchWait, so that objects which are informed together share a batch. It ends early when enough rows
// are due to fill batches.
func (d *dispatcher) waitForBatch(ctx context.Context) {
	for full := time.After(d.batchWait); !d.hasMany.Load(); {
		select {
		case <-ctx.Done():
			return
		case <-full:
			return
		case <-d.wakes: // its rows are leased below
		}
	}
}

// untilNext returns how long to wait for a wake-up: until the next row is due, and at most for a poll, spread so that the
// clients of a fleet do not ask in step.
func (d *dispatcher) untilNext(ctx context.Context) time.Duration {
	const (
		soonest = 10 * time.Millisecond
		slack   = 50 * time.Millisecond // for the way of a statement to Postgres
	)
	wait := d.poll/2 + mathrand.N(d.poll) //nolint:gosec // spread, not secrecy
	d.mu.Lock()
	looked := time.Since(d.lookedAt) + slack
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, nextTimeout)
	defer cancel()
	room := d.room()
	next, err := db.New().NextDispatch(ctx, d.pool, db.NextDispatchParams{
		Kind: d.kind, Looked: looked, Namespaces: room.limited, Since: d.crowd.firstDue(room),
	})
	if err == nil {
		wait = min(wait, max(next.Wait, soonest), max(next.KeysWait, soonest))
		if next.LeftBehind {
			wait = min(wait, d.leftBehind.Delay())
		} else {
			d.leftBehind.Reset()
		}
		if d.parents.waiting.Store(next.ParentsWait); next.ParentsWait {
			wait = min(wait, d.parents.untilLook())
		}
		d.mu.Lock()
		d.keysWait = next.KeysWait < time.Hour
		d.mu.Unlock()
	}
	return wait
}

// dispatchRows leases due rows, and starts or wakes their workflows, until a lease is not full. full reports whether there
// may be more.
func (d *dispatcher) dispatchRows(ctx context.Context) (full bool, err error) {
	if err := d.putOffSnoozed(ctx); err != nil {
		return false, err
	}
	began, filled, many, usedUp := time.Now(), false, false, []string(nil)
	starts, startCtx := errgroup.WithContext(ctx)
	starts.SetLimit(batchesAtOnce)
	if d.batchSize == 1 {
		starts.SetLimit(1)
	}
	for full = true; full && startCtx.Err() == nil && time.Since(began) < longestRound; {
		many = d.hasMany.Swap(false) || many
		batch, size := d.planLease(many)
		if batch != "" && !filled && !many {
			filled = true
			d.waitForBatch(startCtx)
			many = d.hasMany.Swap(false)
		}
		if err = errors.Join(d.wakeKeyWaiters(startCtx), d.wakeChildren(startCtx)); err != nil {
			break
		}
		room := d.room().without(usedUp)
		d.noteCrowd(startCtx, room)
		leased, leaseErr := d.leaseDue(startCtx, batch, size, room)
		if leaseErr != nil {
			err = leaseErr
			break
		}
		count := len(leased)
		var due []db.LeaseDueRow
		if due, err = d.awaitParents(startCtx, leased); err == nil {
			due, err = d.takeSlots(startCtx, due)
		}
		if err != nil {
			err = errors.Join(err, d.releaseRowsNow(ctx, leased))
			break
		}
		if count > 0 {
			d.log.Debug("rows were leased", "kind", d.kind, "workflow_id", batch, "resources", count, "waiting", count-len(due))
		}
		// If a lease for single workflows is full, there may be more for a batch; there may also be more behind rows that wait for a slot or a parent.
		full = count == size || len(due) < count
		var members, singles []db.LeaseDueRow
		for _, row := range due {
			if row.Batched {
				members = append(members, row)
			} else {
				singles = append(singles, row)
			}
		}
		passedBy := len(usedUp) > 0
		usedUp = d.limits.countLeased(d.kind, singles, room)
		full = full || passedBy || len(usedUp) > 0
		if batch == "" {
			usedUp = nil // their rows leave others room in a lease: see crowd
		}
		d.pace.countWoken(len(singles))
		if batch != "" && !many { // a set that fills batches by itself says nothing about the load after it
			d.pace.noteBatch(len(due), size)
		}
		if len(singles) > 0 {
			starts.Go(func() error { return d.wakeSingles(ctx, singles) })
		}
		if len(members) > 0 {
			starts.Go(func() error { return d.startBatch(ctx, batch, members) })
		}
	}
	if many && full {
		d.hasMany.Store(true) // more of the set is due
	}
	if startErr := starts.Wait(); startErr != nil {
		return false, startErr
	}
	return full, err
}
