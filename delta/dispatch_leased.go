package delta

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// maxLeasedAhead is how many batches may wait to be started that were leased as they were informed. What is informed beyond
// that waits in the outbox, as it does where Temporal does not answer.
const maxLeasedAhead = 64

const (
	// lostFor is how long the rows of a set are looked for whose answer was lost: it may still be under way. Those that come later
	// wait for their lease.
	lostFor = 15 * time.Second
	// lostLook is how often they are looked for at most, which a busy dispatcher could do all the time.
	lostLook = time.Second
)

// leasedBatches are batches that were leased by informs of this client and are to be started by its dispatcher.
type leasedBatches struct {
	mu sync.Mutex
	// ahead counts what was promised and not yet started.
	ahead int
	// open tells that there is a dispatcher which starts them, and that the last start went well.
	open  bool
	queue chan leasedBatch
	// lost are batches of which nobody knows whether they have members, because the call that leased them failed.
	lost []lostBatches
	// looked is when the rows of such were last looked for.
	looked time.Time
}

// lostBatches are those of one call.
type lostBatches struct {
	ids []string
	at  time.Time
}

type leasedBatch struct {
	id      string
	members []db.LeaseDueRow
}

func newLeasedBatches() *leasedBatches {
	return &leasedBatches{open: true, queue: make(chan leasedBatch, maxLeasedAhead)}
}

// setOpen says whether more is taken.
func (l *leasedBatches) setOpen(open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = open
}

// take promises to start up to so many batches, and returns how many.
func (l *leasedBatches) take(wanted int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open {
		return 0
	}
	taken := min(wanted, maxLeasedAhead-l.ahead)
	l.ahead += taken
	return taken
}

func (l *leasedBatches) give(back int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead -= back
}

// lose notes batches whose rows are to be looked for.
func (l *leasedBatches) lose(ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lost) == maxLeasedAhead {
		l.lost = slices.Delete(l.lost, 0, 1) // its rows wait for the end of their lease
	}
	l.lost = append(l.lost, lostBatches{ids: ids, at: time.Now()})
}

// lookFor returns the names of batches whose rows are to be looked for now.
func (l *leasedBatches) lookFor(every time.Duration) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lost) == 0 || time.Since(l.looked) < every {
		return nil
	}
	l.looked = time.Now()
	for _, lost := range l.lost {
		ids = append(ids, lost.ids...)
	}
	return ids
}

// forget forgets those whose rows were looked for long enough.
func (l *leasedBatches) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = slices.DeleteFunc(l.lost, func(lost lostBatches) bool { return l.looked.Sub(lost.at) > lostFor })
}

// freeLost has rows dispatched that were leased by calls which failed, and may have been written all the same.
func (d *dispatcher) freeLost(ctx context.Context, every time.Duration) error {
	ids := d.leased.lookFor(every)
	if len(ids) == 0 {
		return nil
	}
	err := db.New().FreeLeased(ctx, db.Planned(d.pool, leaseSize), db.FreeLeasedParams{Kind: d.kind, Lease: d.lease, BatchIds: ids})
	if err == nil {
		d.leased.forget()
	}
	return err
}

// lease leases sets that would fill half a batch at least, or in automatic mode are more than get workflows of their own: they need no
// dispatcher to gather them.
func (c *Client) lease(kind string, count int) *db.Lease {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	d := c.dispatchers[kind]
	if d == nil || d.batchSize == 1 || d.keyed { // a lease looks whether keys have slots
		return nil
	}
	size, fewest := d.batchSize, max(d.batchSize/2, 2)
	if size == 0 {
		size, fewest = d.pace.batch(), 2*fewSingles
	}
	if count < fewest {
		return nil
	}
	return d.leaseBatches((count+size-1)/size, size)
}

// outbox is the client as informs see it.
type outbox struct{ *Client }

func (o outbox) Lease(kind string, count int) *db.Lease { return o.lease(kind, count) }

// leaseBatches promises to start batches.
func (d *dispatcher) leaseBatches(wanted, size int) *db.Lease {
	taken := d.leased.take(wanted)
	if taken == 0 {
		return nil
	}
	lease := &db.Lease{Size: size, Largest: largestInBatch, For: d.lease, HashIDs: d.hashIDs}
	for range taken {
		lease.Batches = append(lease.Batches, d.names.batch(d.kind, rand.Text()))
	}
	lease.Start = func(members map[string][]*deltatype.ResourceRow) {
		if members == nil {
			d.leased.give(taken)
			d.leased.lose(lease.Batches)
			d.wake(1)
			time.AfterFunc(2*lostLook, func() { d.wake(1) })
			return
		}
		for _, id := range lease.Batches {
			rows := members[id]
			if len(rows) == 0 {
				d.leased.give(1)
				continue
			}
			batch := leasedBatch{id: id, members: make([]db.LeaseDueRow, len(rows))}
			for i, r := range rows {
				batch.members[i] = db.LeaseDueRow{
					ID: r.ID, ObjectID: r.ObjectID, Namespace: r.Namespace, Priority: int16(r.Priority), //nolint:gosec // 1 to 5
					State: r.State, Generation: r.Generation, DueAt: r.DueAt, DispatchAt: r.DispatchAt, Batched: true,
				}
			}
			d.leased.queue <- batch // it has room for all that was promised
		}
	}
	return lease
}

// startLeased starts the batches that informs of this client have leased, until ctx ends. What it does not get to is
// dispatched when the lease runs out.
func (d *dispatcher) startLeased(ctx context.Context) {
	defer d.leased.setOpen(false)
	var starts errgroup.Group
	starts.SetLimit(batchesAtOnce)
	defer starts.Wait() //nolint:errcheck // none returns an error
	for {
		select {
		case <-ctx.Done():
			d.leaveLeased(ctx)
			return
		case batch := <-d.leased.queue:
			starts.Go(func() error {
				defer d.leased.give(1)
				err := d.startBatch(ctx, batch.id, batch.members)
				d.leased.setOpen(err == nil && ctx.Err() == nil)
				if err != nil {
					d.wake(1) // the rows are due: the dispatcher tries again, and tells of what is wrong
				}
				return nil
			})
		}
	}
}

// leaveLeased leaves what was not started to other dispatchers.
func (d *dispatcher) leaveLeased(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dispatchGrace)
	defer cancel()
	if err := d.freeLost(ctx, 0); err != nil {
		d.log.Warn("looking for rows whose inform failed did not work; they are dispatched when their lease runs out", "kind", d.kind, "error", err)
	}
	for {
		select {
		case batch := <-d.leased.queue:
			d.leased.give(1)
			if err := d.releaseNow(ctx, batch.members); err != nil {
				d.log.Warn("leaving a batch to others failed; it is started when its lease runs out", "kind", d.kind, "workflow_id", batch.id, "error", err)
			}
		default:
			return
		}
	}
}
