package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// columns are what the fenced statements take of a set of results.
type columns struct {
	ids, generations []int64
	attempts         []int32
	namespaces       []string
	afters           []time.Duration
	errors           [][]byte
	byID             map[int64]*result
}

// after is a row as a write has left it.
type after struct {
	id, generation  int64
	state           deltatype.ResourceState
	syncedAt, dueAt *time.Time
	alone           bool
	row             func() (*deltatype.ResourceRow, error)
}

func afterOf(r *db.Resource) after {
	return after{id: r.ID, generation: r.Generation, state: r.State, syncedAt: r.SyncedAt, dueAt: r.DueAt, alone: r.Alone, row: r.Row}
}

// all are rows that were given back whole.
func all(rows []db.Resource, err error) ([]after, error) {
	afters := make([]after, len(rows))
	for i := range rows {
		afters[i] = afterOf(&rows[i])
	}
	return afters, err
}

// columnsFor have room for so many.
func columnsFor(n int) columns {
	return columns{
		ids: make([]int64, 0, n), generations: make([]int64, 0, n), attempts: make([]int32, 0, n), namespaces: make([]string, 0, n),
		byID: make(map[int64]*result, n),
	}
}

func (c *columns) add(one *result) {
	if c.byID == nil {
		c.byID = map[int64]*result{}
	}
	c.ids = append(c.ids, one.worked.ID)
	c.generations = append(c.generations, one.worked.Generation)
	c.attempts = append(c.attempts, one.worked.Attempt)
	c.namespaces = append(c.namespaces, one.worked.Namespace)
	c.byID[one.worked.ID] = one
}

// flush writes a set of results: one statement for each sort of outcome that is in it. It locks rows in the order in which
// informs do, so that one waits for the other, and neither is the victim of a deadlock.
func (r *batchRun) flush(ctx context.Context, set []*result) error {
	slices.SortFunc(set, func(a, b *result) int { return cmp.Compare(a.worked.ObjectID, b.worked.ObjectID) })
	var failed, degraded, deleted, snoozed, left columns
	synced := columnsFor(len(set)) // most are, in most sets
	var settled []int64
	for _, one := range set {
		verdict := one.outcome.Verdict
		switch {
		case one.left:
			left.add(one)
			left.afters = append(left.afters, 0)
			continue
		case one.written != nil:
			if !one.counted {
				r.count(one, one.written.State)
				r.observe(verdict, one.written.Row)
			}
			settled = append(settled, one.worked.ID)
			continue
		case verdict == VerdictSynced:
			synced.add(one)
			continue
		case verdict == VerdictSnoozed:
			snoozed.add(one)
			snoozed.afters = append(snoozed.afters, one.outcome.SnoozeFor)
			continue
		}
		if one.encoded == nil {
			var err error
			if one.encoded, err = encodeError(countedAttempt(one.worked), one.outcome); err != nil {
				return err
			}
		}
		to := &failed
		switch {
		case verdict == VerdictDeleted:
			to = &deleted
		case verdict == VerdictDegraded || isLast(one.worked):
			to = &degraded
		default:
			to.afters = append(to.afters, r.Retry.Backoff(countedAttempt(one.worked)))
		}
		to.add(one)
		to.errors = append(to.errors, one.encoded)
	}
	q := db.New()
	for _, write := range []struct {
		*columns
		do func(context.Context) ([]after, error)
	}{
		{&synced, func(ctx context.Context) ([]after, error) { return r.writeSyncedMany(ctx, &synced) }},
		{&failed, func(ctx context.Context) ([]after, error) {
			return all(q.CompleteFailedMany(ctx, r.Pool, db.CompleteFailedManyParams{
				Ids: failed.ids, Generations: failed.generations, Attempts: failed.attempts, Afters: failed.afters,
				Errors: failed.errors, MaxErrors: MaxErrors,
			}))
		}},
		{&degraded, func(ctx context.Context) ([]after, error) {
			return all(q.CompleteDegradedMany(ctx, r.Pool, db.CompleteDegradedManyParams{
				Ids: degraded.ids, Generations: degraded.generations, Attempts: degraded.attempts, Namespaces: degraded.namespaces,
				Errors: degraded.errors, MaxErrors: MaxErrors, DefaultRetention: r.Rest.DegradedRetention,
			}))
		}},
		{&deleted, func(ctx context.Context) ([]after, error) {
			return all(q.CompleteDeletedMany(ctx, r.Pool, db.CompleteDeletedManyParams{
				Ids: deleted.ids, Generations: deleted.generations, Attempts: deleted.attempts, Namespaces: deleted.namespaces,
				Errors: deleted.errors, MaxErrors: MaxErrors, DefaultRetention: r.Rest.DeletedRetention, Grace: DueGrace,
			}))
		}},
		{&snoozed, func(ctx context.Context) ([]after, error) {
			return all(q.CompleteSnoozedMany(ctx, r.Pool, db.CompleteSnoozedManyParams{
				Ids: snoozed.ids, Generations: snoozed.generations, Attempts: snoozed.attempts, Afters: snoozed.afters, Alone: true,
			}))
		}},
		{&left, func(ctx context.Context) ([]after, error) {
			return all(q.CompleteSnoozedMany(ctx, r.Pool, db.CompleteSnoozedManyParams{
				Ids: left.ids, Generations: left.generations, Attempts: left.attempts, Afters: left.afters,
			}))
		}},
	} {
		if len(write.ids) == 0 {
			continue
		}
		var rows []after
		err := retry(ctx, func(ctx context.Context) (err error) {
			rows, err = write.do(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("writing %d outcomes of %s: %w", len(write.ids), r.in.WorkflowID, err)
		}
		settled = append(settled, r.took(write.columns, rows)...)
	}
	r.forget(set)
	return r.release(ctx, settled)
}

// writeSyncedMany writes what was synced. It is given back what was changed, and makes whole rows of that and of what was
// claimed only for those who want them.
func (r *batchRun) writeSyncedMany(ctx context.Context, c *columns) ([]after, error) {
	written, err := db.New().CompleteSyncedMany(ctx, r.Pool, db.CompleteSyncedManyParams{
		Ids: c.ids, Generations: c.generations, Attempts: c.attempts, Namespaces: c.namespaces,
		DefaultExpiry: r.Rest.Expiry, DefaultRetention: r.Rest.SyncedRetention, Grace: DueGrace,
	})
	afters := make([]after, len(written))
	for i := range written {
		w, worked := &written[i], c.byID[written[i].ID].worked
		afters[i] = after{id: w.ID, generation: w.Generation, state: w.State, syncedAt: w.SyncedAt, dueAt: w.DueAt, alone: worked.Alone}
		afters[i].row = func() (*deltatype.ResourceRow, error) {
			row := *worked
			row.Generation, row.SyncedGeneration, row.SyncCount, row.SyncedAt = w.Generation, w.SyncedGeneration, w.SyncCount, w.SyncedAt
			row.DueAt, row.DispatchAt, row.State, row.Paused, row.HeldUntil = w.DueAt, w.DispatchAt, w.State, w.Paused, nil
			return row.Row()
		}
	}
	return afters, err
}

// took takes in what was written, and returns the members whose rows went on meanwhile.
func (r *batchRun) took(c *columns, rows []after) (wentOn []int64) {
	wake := false
	for _, row := range rows {
		one := c.byID[row.id]
		delete(c.byID, row.id)
		if one.left {
			wake, one.counted = true, true
			continue
		}
		r.count(one, row.state)
		r.observe(one.outcome.Verdict, row.row)
		if row.state == deltatype.ResourceStateSynced && row.dueAt != nil && row.syncedAt != nil && !row.alone {
			r.rests = append(r.rests, row.dueAt.Sub(*row.syncedAt))
		}
		wake = wake || row.alone || row.generation > one.worked.Generation
	}
	left := 0
	for id, one := range c.byID {
		wentOn = append(wentOn, id)
		if !one.counted {
			one.counted = true
			left++
		}
	}
	if wake {
		r.redispatched()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Left += left
	return wentOn
}

// forget takes the members of a set off those that are kept.
func (r *batchRun) forget(set []*result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range set {
		delete(r.held, one.worked.ID)
	}
}

// count counts a member whose row is in that state by now.
func (r *batchRun) count(one *result, state deltatype.ResourceState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one.counted = true
	switch p := &r.progress; one.outcome.Verdict {
	case VerdictSynced:
		p.Synced++
	case VerdictSnoozed:
		p.Snoozed++
	case VerdictDeleted:
		p.Deleted++
	case VerdictFailed, VerdictDegraded:
		if state == deltatype.ResourceStateDegraded {
			p.Degraded++
		} else {
			p.Failed++
		}
		if len(p.Failures) >= maxFailures {
			return
		}
		failure := BatchFailure{ID: one.worked.ObjectID, Error: bound(one.outcome.Error, maxShownError)}
		if r.in.Hashed {
			failure = BatchFailure{}
			if id := one.worked.HashedID; id != nil {
				failure.ID = *id
			}
		}
		p.Failures = append(p.Failures, failure)
	}
}
