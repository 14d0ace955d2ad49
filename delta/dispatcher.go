package delta

import (
	"context"
	"crypto/rand"
	"encoding/json"
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
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// leaseSize is how many rows one statement leases whose resources have a workflow each.
	leaseSize = 256
	// startsAtOnce is how many calls of Temporal are under way at once for single workflows, batchesAtOnce for batches.
	startsAtOnce  = 32
	batchesAtOnce = 8
	// dispatchPoll is the net under notifications: how often a kind is asked for due rows that nobody announced.
	dispatchPoll       = 5 * time.Second
	dispatchRPCTimeout = 10 * time.Second
	// dispatchGrace is how long calls go on that were under way when the client was stopped.
	dispatchGrace      = time.Second
	maxDispatchBackoff = 10 * time.Second
	// firstStartBackoff and maxStartBackoff bound the wait of a row whose own workflow cannot be started.
	firstStartBackoff = time.Second
	maxStartBackoff   = 10 * time.Minute
	// largestInBatch is how large an object may be in the database, in bytes as it is stored there, to be in a batch: the
	// objects of a batch are in memory together.
	largestInBatch = 64 << 10
	// leaseRounds is how many leases begin with the most urgent rows before one begins with the least urgent: those wait longer, and not for
	// ever.
	leaseRounds = 8
)

// dispatcher empties the outbox of one kind: it leases rows that are due, and wakes their workflows. Any number of clients may do so for
// the same kind.
//
// Dying before the wake-up leaves a lease that passes; dying after it repeats a wake-up, which is harmless.
type dispatcher struct {
	kind   string
	pool   *pgxpool.Pool
	client client.Client
	// temporalNamespace is where client calls, which does not tell it.
	temporalNamespace string

	names   temporalNames
	hashIDs bool
	// finalizes is true where the client's controller of the kind has a Finalizer.
	finalizes bool
	// eager starts workflows on this client's own worker, without a way through Temporal's task queue.
	eager bool
	// ref is that of the kind: a resource's has its id too.
	ref func() activities.Ref
	// dropAttributes leaves search attributes out of ref.
	dropAttributes func()
	log            *slog.Logger
	lease          time.Duration
	poll           time.Duration
	// timeout bounds a round.
	timeout time.Duration
	health  dispatchHealth
	// telemetry counts what is woken; nil for none.
	telemetry *telemetry
	wakes     chan struct{}
	// many is set while a set waits that is to be leased to batches at once.
	hasMany atomic.Bool
	limits  *namespaceLimits
	// batchSize above 1 starts batches, which wait for batchWait to be filled; 1 starts a workflow for each resource, 0 leaves it to pace.
	batchSize int
	pace      *pace
	batchWait time.Duration
	// keyed is true where calls are limited by keys of objects.
	keyed bool
	// parents are the parents that rows of the kind wait for.
	parents parentsWatch
	// touches is true where resources of the kind are touched when their parents change.
	touches bool

	mu sync.Mutex
	// leases counts them, for leaseRounds. lookedAt is when the latest began, and putOffAt when it was last looked for rows of snoozed namespaces.
	leases             int
	lookedAt, putOffAt time.Time
	// keysWait is true while rows wait for slots of their limit keys, also where these are not limited any more. queueing is true while what is
	// leased has to wait for such a slot: there may be much more of it.
	keysWait, queueing bool
	// failures counts how often the workflow of a row could not be started in a row.
	failures map[int64]int
}

// wake makes the dispatcher look at once, for so many rows that a statement has made due. It never blocks.
func (d *dispatcher) wake(due int) {
	if d.fillsBatches(due) {
		d.hasMany.Store(true)
	}
	select {
	case d.wakes <- struct{}{}:
	default:
	}
}

// fillsBatches reports whether a set makes batches of its own: nothing is gathered for them, and none of it gets workflows of its own first, which
// would keep the others waiting.
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

// dispatchRound is dispatch within its timeout, and notes how it went.
func (d *dispatcher) dispatchRound(ctx context.Context) (full bool, err error) {
	d.health.beginRound()
	round, cancel := context.WithTimeoutCause(ctx, d.timeout, fmt.Errorf("it took longer than %s", d.timeout))
	defer cancel()
	full, err = d.dispatchRows(round)
	if ctx.Err() == nil && round.Err() != nil {
		err = errors.Join(context.Cause(round), err) // what was not dispatched may have been released without an error
	}
	d.health.endRound(err)
	return full, err
}

// waitForBatch waits a little, so that what is informed together comes into one batch; no longer than until there is a set that makes batches of its own.
func (d *dispatcher) waitForBatch(ctx context.Context) {
	for full := time.After(d.batchWait); !d.hasMany.Load(); {
		select {
		case <-ctx.Done():
			return
		case <-full:
			return
		case <-d.wakes: // what it was for is leased below
		}
	}
}

// untilNext is how long to wait for a wake-up: until the next row is due, and no longer than a poll, spread so that the clients of
// a fleet do not ask in step.
func (d *dispatcher) untilNext(ctx context.Context) time.Duration {
	const (
		soonest = 10 * time.Millisecond
		slack   = 50 * time.Millisecond // for what a statement's way to Postgres takes
	)
	wait := d.poll/2 + mathrand.N(d.poll) //nolint:gosec // spread, not secrecy
	d.mu.Lock()
	looked := time.Since(d.lookedAt) + slack
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, nextTimeout)
	defer cancel()
	if next, err := db.New().NextDispatch(ctx, d.pool, db.NextDispatchParams{Kind: d.kind, Looked: looked}); err == nil {
		wait = min(wait, max(next.Wait, soonest), max(next.KeysWait, soonest))
		if d.parents.waiting.Store(next.ParentsWait); next.ParentsWait {
			wait = min(wait, d.parents.untilLook())
		}
		d.mu.Lock()
		d.keysWait = next.KeysWait < time.Hour
		d.mu.Unlock()
	}
	return wait
}

// dispatchRows leases what is due, and starts or wakes workflows, until there is no full set any more. It returns true if there may be more.
func (d *dispatcher) dispatchRows(ctx context.Context) (full bool, err error) {
	if err := d.putOffSnoozed(ctx); err != nil {
		return false, err
	}
	const turn = time.Second // after which it puts off what is snoozed by then, and looks at its context
	began, filled, many := time.Now(), false, false
	starts, startCtx := errgroup.WithContext(ctx)
	starts.SetLimit(batchesAtOnce)
	if d.batchSize == 1 {
		starts.SetLimit(1)
	}
	for full = true; full && startCtx.Err() == nil && time.Since(began) < turn; {
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
		leased, leaseErr := d.leaseDue(startCtx, batch, size)
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
		// Where workflows for a few are not enough, there may be more for a batch; and behind what has to wait for a slot, or a parent, too.
		full = count == size || len(due) < count
		var members, singles []db.LeaseDueRow
		var namespaces []string
		for _, row := range due {
			if row.Batched {
				members = append(members, row)
			} else {
				singles = append(singles, row)
				namespaces = append(namespaces, row.Namespace)
			}
		}
		if d.limits.countLeased(namespaces) {
			full = true // behind those that there was no room for
		}
		d.pace.countWoken(len(singles))
		if batch != "" && !many { // a set that is leased at once does not say what comes after it
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
		d.hasMany.Store(true) // there is more of the set
	}
	if startErr := starts.Wait(); startErr != nil {
		return false, startErr
	}
	return full, err
}

// planLease is what the next lease is for: a batch with a name, or single workflows, and of how many. many is true where a set waits that makes batches
// of its own.
func (d *dispatcher) planLease(many bool) (batch string, size int) {
	switch {
	case d.batchSize == 1:
		return "", leaseSize
	case d.batchSize > 1:
		size = d.batchSize
	default:
		if size = min(d.pace.allowedSingles(), leaseSize); size > 0 && !many {
			return "", size
		}
		size = d.pace.nextBatchSize()
	}
	return d.names.batchWorkflowID(d.kind, rand.Text()), size
}

// nextPriorities are priorities in the order of the next lease.
func (d *dispatcher) nextPriorities() []int16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leases%leaseRounds == 0 {
		return []int16{5, 4, 3, 2, 1}
	}
	return []int16{1, 2, 3, 4, 5}
}

// leaseDue leases rows that are due, for a batch or for workflows of their own. It waits a little for the answer where the client is stopped meanwhile, or
// another start has failed: nobody would release what it has leased.
func (d *dispatcher) leaseDue(ctx context.Context, batch string, size int) ([]db.LeaseDueRow, error) {
	ctx, cancel := withGrace(ctx, dispatchGrace, d.timeout)
	defer cancel()
	d.mu.Lock()
	d.leases++
	d.lookedAt = time.Now()
	d.mu.Unlock()
	priorities := d.nextPriorities()
	limited, rooms, full := d.limits.leasableRows()
	if batch != "" {
		limited, rooms = []string{}, []int32{} // its members wait within it, and keep no slot of the kind
	}
	return db.New().LeaseDue(ctx, db.Planned(d.pool, leaseSize), db.LeaseDueParams{
		Kind:           d.kind,
		Lease:          d.lease,
		Longest:        activities.LongestLease,
		Grace:          activities.DueGrace,
		BatchID:        batch,
		BatchPrefix:    d.names.batchIDPrefix(d.kind),
		HashIds:        d.hashIDs,
		Finalizes:      d.finalizes,
		Largest:        largestInBatch,
		MostLost:       activities.MaxLost,
		Priorities:     priorities,
		FullNamespaces: full, LimitedNamespaces: limited, Rooms: rooms,
		Batch: int32(size), //nolint:gosec // it has a bound
	})
}

// putOffSnoozed has rows of snoozed namespaces that are due looked at when they may be worked, so that leases do not step over them each time. Once
// in a while is enough: they are put off in sets, and only the first lease after a snooze has begun reads more.
func (d *dispatcher) putOffSnoozed(ctx context.Context) error {
	const every = time.Second
	if time.Since(d.putOffAt) < every {
		return nil
	}
	d.putOffAt = time.Now()
	for ctx.Err() == nil {
		n, err := db.New().PutOffSnoozed(ctx, d.pool, db.PutOffSnoozedParams{Kind: d.kind, Priorities: d.nextPriorities(), Batch: queueSize})
		if err != nil {
			return fmt.Errorf("putting off resources of snoozed namespaces: %w", err)
		}
		if 2*n < queueSize {
			return nil
		}
	}
	return nil
}

// releaseRows makes leased rows due again, each after its time; why is for the rows themselves, empty where they are not at fault.
func (d *dispatcher) releaseRows(ctx context.Context, rows []db.LeaseDueRow, after func(db.LeaseDueRow) (time.Duration, string)) error {
	if len(rows) == 0 {
		return nil
	}
	p := db.ReleaseLeasesParams{MaxErrors: activities.MaxErrors}
	for _, row := range rows {
		if row.DispatchAt == nil {
			continue // it rests for ever
		}
		wait, why := after(row)
		encoded := ""
		if why != "" {
			entry, err := json.Marshal(deltatype.AttemptError{At: time.Now().UTC(), Error: truncateText(why, maxReason)})
			if err != nil {
				return err
			}
			encoded = string(entry)
		}
		p.Ids = append(p.Ids, row.ID)
		p.LeasedUntil = append(p.LeasedUntil, *row.DispatchAt)
		p.Afters = append(p.Afters, wait)
		p.Errors = append(p.Errors, encoded)
	}
	// Also while stopping: what was not woken should not wait for the lease to pass.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchGrace)
	defer cancel()
	if err := db.New().ReleaseLeases(ctx, db.Planned(d.pool, len(p.Ids)), p); err != nil {
		return fmt.Errorf("releasing leases: %w", err)
	}
	return nil
}

// releaseRowsNow makes leased rows due again at once: they are not at fault.
func (d *dispatcher) releaseRowsNow(ctx context.Context, rows []db.LeaseDueRow) error {
	return d.releaseRows(ctx, rows, func(db.LeaseDueRow) (time.Duration, string) { return 0, "" })
}

// maxReason bounds why a workflow could not be started, as it is written on the row.
const maxReason = 1 << 10
