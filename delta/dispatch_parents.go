package delta

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/db"
)

const (
	// parentsPage is how many parents that are waited for one statement looks at, and childrenPage how many rows one wakes.
	parentsPage  = 1000
	childrenPage = 1000
	// parentsLook is about how often a page of them is looked at: other clients sync parents, too.
	parentsLook = time.Second
	// maxSyncedFirst is how many resources of this client that were synced for the first time are kept until their children are woken. The pages find the others.
	maxSyncedFirst = 10_000
)

// parentsWatch is what a dispatcher knows of the parents that rows of its kind wait for.
type parentsWatch struct {
	// has is true where objects of the kind may have parents.
	has bool
	// waiting is true while rows of the kind wait, as far as is known.
	waiting atomic.Bool

	mu sync.Mutex
	// synced are resources that were synced and may have children that wait, each as kind/id.
	synced []string
	// after is the last parent that was looked at, and lookAt when the next page is.
	after  string
	lookAt time.Time
}

// addSynced notes that this client has synced a resource for the first time, and reports whether rows may wait for it.
func (w *parentsWatch) addSynced(resource Ref) bool {
	if !w.waiting.Load() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.synced) >= maxSyncedFirst {
		return false
	}
	w.synced = append(w.synced, resource.String())
	return true
}

// untilLook is how long it is until the next look.
func (w *parentsWatch) untilLook() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.synced) > 0 {
		return 0
	}
	return max(time.Until(w.lookAt), 0)
}

// takeSynced takes some of what was noted.
func (w *parentsWatch) takeSynced() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.synced), parentsPage)
	some := w.synced[:n:n]
	w.synced = w.synced[n:]
	return some
}

// returnSynced has some looked at again: not all of their children were woken.
func (w *parentsWatch) returnSynced(some []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = append(some, w.synced...)
}

// nextPage is after which parent the next page begins, where one is to be looked at now.
func (w *parentsWatch) nextPage() (after string, look bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.after, w.waiting.Load() && !time.Now().Before(w.lookAt)
}

// notePage notes where the next page begins, and that it is for later unless this one has woken rows.
func (w *parentsWatch) notePage(after string, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.after = after; !again {
		w.lookAt = time.Now().Add(parentsLook*3/4 + mathrand.N(parentsLook/2)) //nolint:gosec // spread, not secrecy
	}
}

// wakeChildren wakes what may wait for a resource that this client has synced for the first time. It never blocks.
func (c *Client) wakeChildren(kind, objectID string) {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	for _, d := range c.dispatchers {
		if d.parents.addSynced(Ref{Kind: kind, ID: objectID}) {
			d.wake(1)
		}
	}
}

// awaitParents has rows that were leased wait for parents which were never synced, and returns those that are to be worked now.
func (d *dispatcher) awaitParents(ctx context.Context, leased []db.LeaseDueRow) ([]db.LeaseDueRow, error) {
	if !d.parents.has || len(leased) == 0 {
		return leased, nil
	}
	ids := make([]int64, len(leased))
	for i, row := range leased {
		ids[i] = row.ID
	}
	waiting, err := db.New().AwaitParents(ctx, db.Planned(d.pool, len(ids)), db.AwaitParentsParams{Kind: d.kind, Ids: ids})
	if err != nil {
		return nil, fmt.Errorf("having resources wait for their parents: %w", err)
	}
	if len(waiting) == 0 {
		return leased, nil
	}
	d.parents.waiting.Store(true)
	slices.Sort(waiting)
	return slices.DeleteFunc(leased, func(row db.LeaseDueRow) bool {
		_, waits := slices.BinarySearch(waiting, row.ID)
		return waits
	}), nil
}

// wakeChildren wakes rows that wait for parents which were synced meanwhile: at once where this client has synced them, and, a page of parents at a time, where
// others have, or a process has died in between. It looks at parents, and not at rows, and wakes a page of rows: what is due beside them is leased before it
// goes on. Where objects of the kind have no parents any more, all are woken.
func (d *dispatcher) wakeChildren(ctx context.Context) error {
	if synced := d.parents.takeSynced(); len(synced) > 0 {
		_, err := d.wakeChildrenOf(ctx, synced)
		return err
	}
	after, look := d.parents.nextPage()
	if !look {
		return nil
	}
	page, err := db.New().AwaitedParents(ctx, d.pool, db.AwaitedParentsParams{Kind: d.kind, AfterParent: after, Page: parentsPage})
	if err != nil {
		return fmt.Errorf("looking at parents that are waited for: %w", err)
	}
	var synced []string
	for _, row := range page {
		if after = row.Parent; row.Synced || !d.parents.has {
			synced = append(synced, row.Parent)
		}
	}
	if len(page) < parentsPage {
		after = "" // from the beginning
	}
	woken, err := d.wakeChildrenOf(ctx, synced)
	d.parents.notePage(after, woken > 0)
	return err
}

// wakeChildrenOf wakes a page of the rows that wait for some parents, and says how many. The others are next.
func (d *dispatcher) wakeChildrenOf(ctx context.Context, parents []string) (woken int64, err error) {
	if len(parents) == 0 {
		return 0, nil
	}
	woken, err = db.New().WakeChildrenOf(ctx, d.pool, db.WakeChildrenOfParams{Kind: d.kind, Parents: parents, Page: childrenPage})
	if err != nil {
		return 0, fmt.Errorf("waking what waits for parents that were synced: %w", err)
	}
	if woken == childrenPage {
		d.parents.returnSynced(parents)
	}
	return woken, nil
}
