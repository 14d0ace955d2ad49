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

func (c *columns) add(one *result) {
	if c.byID == nil {
		c.byID = map[int64]*result{}
	}
	c.ids = append(c.ids, one.row.ID)
	c.generations = append(c.generations, one.row.Generation)
	c.attempts = append(c.attempts, rawAttempt(one.row))
	c.namespaces = append(c.namespaces, one.row.Namespace)
	c.byID[one.row.ID] = one
}

// flush writes a set of results: one statement for each sort of outcome that is in it. It locks rows in the order in which
// informs do, so that one waits for the other, and neither is the victim of a deadlock.
func (r *batchRun) flush(ctx context.Context, set []*result) error {
	slices.SortFunc(set, func(a, b *result) int { return cmp.Compare(a.row.ObjectID, b.row.ObjectID) })
	var synced, failed, degraded, deleted, snoozed, left columns
	var settled []int64
	for _, one := range set {
		verdict := one.outcome.Verdict
		switch {
		case one.left:
			left.add(one)
			left.afters = append(left.afters, 0)
			continue
		case one.written:
			r.count(verdict, one.raw, one)
			r.observe(verdict, one.raw)
			settled = append(settled, one.row.ID)
			continue
		case verdict == VerdictSynced:
			synced.add(one)
			continue
		case verdict == VerdictSnoozed:
			snoozed.add(one)
			snoozed.afters = append(snoozed.afters, one.outcome.SnoozeFor)
			continue
		}
		encoded, err := encodeError(one.row.Attempt, one.outcome)
		if err != nil {
			return err
		}
		to := &failed
		switch {
		case verdict == VerdictDeleted:
			to = &deleted
		case verdict == VerdictDegraded || one.row.Attempt >= one.row.MaxAttempts:
			to = &degraded
		default:
			to.afters = append(to.afters, r.Retry.Backoff(one.row.Attempt))
		}
		to.add(one)
		to.errors = append(to.errors, encoded)
	}
	q := db.New()
	for _, write := range []struct {
		*columns
		do func(context.Context) ([]db.Resource, error)
	}{
		{&synced, func(ctx context.Context) ([]db.Resource, error) { return r.writeSyncedMany(ctx, &synced) }},
		{&failed, func(ctx context.Context) ([]db.Resource, error) {
			return q.CompleteFailedMany(ctx, r.Pool, db.CompleteFailedManyParams{
				Ids: failed.ids, Generations: failed.generations, Attempts: failed.attempts, Afters: failed.afters,
				Errors: failed.errors, MaxErrors: MaxErrors,
			})
		}},
		{&degraded, func(ctx context.Context) ([]db.Resource, error) {
			return q.CompleteDegradedMany(ctx, r.Pool, db.CompleteDegradedManyParams{
				Ids: degraded.ids, Generations: degraded.generations, Attempts: degraded.attempts, Namespaces: degraded.namespaces,
				Errors: degraded.errors, MaxErrors: MaxErrors, DefaultRetention: r.Rest.DegradedRetention,
			})
		}},
		{&deleted, func(ctx context.Context) ([]db.Resource, error) {
			return q.CompleteDeletedMany(ctx, r.Pool, db.CompleteDeletedManyParams{
				Ids: deleted.ids, Generations: deleted.generations, Attempts: deleted.attempts, Namespaces: deleted.namespaces,
				Errors: deleted.errors, MaxErrors: MaxErrors, DefaultRetention: r.Rest.DeletedRetention, Grace: DueGrace,
			})
		}},
		{&snoozed, func(ctx context.Context) ([]db.Resource, error) {
			return q.CompleteSnoozedMany(ctx, r.Pool, db.CompleteSnoozedManyParams{
				Ids: snoozed.ids, Generations: snoozed.generations, Attempts: snoozed.attempts, Afters: snoozed.afters, Alone: true,
			})
		}},
		{&left, func(ctx context.Context) ([]db.Resource, error) {
			return q.CompleteSnoozedMany(ctx, r.Pool, db.CompleteSnoozedManyParams{
				Ids: left.ids, Generations: left.generations, Attempts: left.attempts, Afters: left.afters,
			})
		}},
	} {
		if len(write.ids) == 0 {
			continue
		}
		var rows []db.Resource
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

// writeSyncedMany writes what was synced. What it gives back of each row is what was claimed, with what was changed.
func (r *batchRun) writeSyncedMany(ctx context.Context, c *columns) ([]db.Resource, error) {
	written, err := db.New().CompleteSyncedMany(ctx, r.Pool, db.CompleteSyncedManyParams{
		Ids: c.ids, Generations: c.generations, Attempts: c.attempts, Namespaces: c.namespaces,
		DefaultExpiry: r.Rest.Expiry, DefaultRetention: r.Rest.SyncedRetention, Grace: DueGrace,
	})
	rows := make([]db.Resource, len(written))
	for i, w := range written {
		row := c.byID[w.ID].raw
		row.Generation, row.SyncedGeneration, row.SyncCount, row.SyncedAt = w.Generation, w.SyncedGeneration, w.SyncCount, w.SyncedAt
		row.DueAt, row.DispatchAt, row.State, row.Paused, row.HeldUntil = w.DueAt, w.DispatchAt, w.State, w.Paused, nil
		rows[i] = row
	}
	return rows, err
}

// took takes in what was written, and returns the members whose rows went on meanwhile.
func (r *batchRun) took(c *columns, rows []db.Resource) (wentOn []int64) {
	wake := false
	for _, row := range rows {
		one := c.byID[row.ID]
		delete(c.byID, row.ID)
		if one.left {
			wake = true
			continue
		}
		r.count(one.outcome.Verdict, row, one)
		r.observe(one.outcome.Verdict, row)
		if row.State == deltatype.ResourceStateSynced && row.DueAt != nil && row.SyncedAt != nil && !row.Alone {
			r.rests = append(r.rests, row.DueAt.Sub(*row.SyncedAt))
		}
		wake = wake || row.Alone || row.Generation > one.row.Generation
	}
	for id := range c.byID {
		wentOn = append(wentOn, id)
	}
	if wake {
		r.redispatched()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Left += len(wentOn)
	return wentOn
}

// forget takes the members of a set off those that are kept.
func (r *batchRun) forget(set []*result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range set {
		delete(r.held, one.row.ID)
	}
}

func (r *batchRun) count(verdict Verdict, row db.Resource, one *result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := &r.progress; verdict {
	case VerdictSynced:
		p.Synced++
	case VerdictSnoozed:
		p.Snoozed++
	case VerdictDeleted:
		p.Deleted++
	case VerdictFailed, VerdictDegraded:
		if row.State == deltatype.ResourceStateDegraded {
			p.Degraded++
		} else {
			p.Failed++
		}
		if len(p.Failures) >= maxFailures {
			return
		}
		failure := BatchFailure{ID: one.row.ObjectID, Error: bound(one.outcome.Error, maxShownError)}
		if r.in.Hashed {
			failure = BatchFailure{ID: one.row.HashedID}
		}
		p.Failures = append(p.Failures, failure)
	}
}
