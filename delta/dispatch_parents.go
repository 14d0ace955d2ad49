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
	// parentsPage is how many awaited parents one statement checks; childrenPage is how many rows one statement wakes.
	parentsPage  = 1000
	childrenPage = 1000
	// parentsLook is about how often a page of awaited parents is checked, because other clients sync parents too.
	parentsLook = time.Second
	// maxSyncedFirst bounds the resources that this client has synced for the first time and whose children are not woken
	// yet. The pages of awaited parents find the others.
	maxSyncedFirst = 10_000
)

// parentsWatch is a dispatcher's knowledge of the parents for which rows of its kind wait.
type parentsWatch struct {
	// has reports whether objects of the kind may have parents.
	has bool
	// waiting reports whether rows of the kind wait, as far as is known.
	waiting atomic.Bool

	mu sync.Mutex
	// synced are synced resources that may have waiting children, each as kind/id.
	synced []string
	// after is the last parent that was checked, lookAt the time of the next page.
	after  string
	lookAt time.Time
}

// addSynced notes that this client has synced a resource for the first time. It reports whether rows may wait for it.
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

// untilLook returns the time until the next check.
func (w *parentsWatch) untilLook() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.synced) > 0 {
		return 0
	}
	return max(time.Until(w.lookAt), 0)
}

// takeSynced removes and returns up to a page of the noted resources.
func (w *parentsWatch) takeSynced() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.synced), parentsPage)
	some := w.synced[:n:n]
	w.synced = w.synced[n:]
	return some
}

// returnSynced puts resources back whose children were not all woken.
func (w *parentsWatch) returnSynced(some []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = append(some, w.synced...)
}

// nextPage returns the parent after which the next page begins, and whether the page is due.
func (w *parentsWatch) nextPage() (after string, look bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.after, w.waiting.Load() && !time.Now().Before(w.lookAt)
}

// notePage notes where the next page begins. The page waits for its interval unless again is set, because this one has
// woken rows.
func (w *parentsWatch) notePage(after string, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.after = after; !again {
		w.lookAt = time.Now().Add(parentsLook*3/4 + mathrand.N(parentsLook/2)) //nolint:gosec // spread, not secrecy
	}
}

// wakeChildren wakes rows that may wait for a resource that this client has synced for the first time. It never blocks.
func (c *Client) wakeChildren(kind, objectID string) {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	for _, d := range c.dispatchers {
		if d.parents.addSynced(Ref{Kind: kind, ObjectID: objectID}) {
			d.wake(1)
		}
	}
}

// awaitParents makes leased rows wait for parents that were never synced, and returns the rows to be worked now.
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

// wakeChildren wakes rows whose parents were synced meanwhile. For parents that this client has synced it does so at once.
// It finds parents that other clients have synced, or whose children were lost with a process, page by page. It reads
// parents instead of rows, and wakes one page of rows, so that other due rows are leased in between. If objects of the kind
// no longer have parents, all rows are woken.
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

// wakeChildrenOf wakes a page of the rows that wait for parents, and returns their number. The next call wakes the others.
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
