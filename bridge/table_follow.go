package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
)

const (
	// pageLinger is how long a page waits for further changes, and pageAge how long it may wait where they keep coming.
	pageLinger = 5 * time.Millisecond
	pageAge    = 50 * time.Millisecond
)

// followTable reads the table as a whole, if that is needed, and its changes, until ctx ends or it cannot go on.
func (r *tableRun[T]) followTable(ctx context.Context) error {
	why, err := r.prepareSlot(ctx)
	if err != nil {
		return err
	}
	shape, err := r.describeTable(ctx)
	if err != nil {
		return err
	}
	if why == "" && shape != r.state.Shape {
		why = "other columns are read than before, or of other types"
	}
	if err := r.openStream(ctx); err != nil {
		return err
	}
	if why != "" {
		if r.lost != "" {
			why = r.lost
		}
		if err := r.beginReading(ctx, why); err != nil {
			return err
		}
	}
	r.reportProgress(time.Time{})
	return r.takeChanges(ctx)
}

// takeChanges takes what comes.
func (r *tableRun[T]) takeChanges(ctx context.Context) error {
	for checked := time.Now(); ; {
		asked := time.Now()
		t, err := r.nextTransaction(ctx)
		if err == nil && t != nil {
			if len(r.page.changes) == 0 {
				r.reportProgress(t.CommitTime)
			}
			err = r.takeTransaction(ctx, t)
		}
		if err == nil && (t == nil || r.isDue()) {
			err = r.flushPage(ctx)
		}
		if err == nil && t == nil {
			r.reportProgress(asked)
		}
		if err == nil && time.Since(checked) >= r.config.CheckInterval {
			checked = time.Now()
			err = r.checkDatabase(ctx)
		}
		if err == nil {
			err = r.endReading(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// nextTransaction returns the next transaction; nil if none has arrived for a while.
func (r *tableRun[T]) nextTransaction(ctx context.Context) (*cdc.Transaction, error) {
	wait := r.config.CheckInterval
	if r.isReading {
		wait = min(wait, time.Second) // the end of a backfill without rows brings none
	}
	if r.hasChanges() || r.end > r.acknowledged {
		wait = pageLinger
	}
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	t, err := r.stream.Next(within)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && within.Err() != nil {
		return nil, nil //nolint:nilnil // nothing has come
	}
	return t, err
}

// takeTransaction adds the changes of a transaction to the page. The position moves when all of them are in it.
func (r *tableRun[T]) takeTransaction(ctx context.Context, t *cdc.Transaction) error {
	for change, err := range t.Changes() {
		if err != nil {
			return err
		}
		if err := r.addChange(ctx, t.XID, change); err != nil {
			return err
		}
		if r.page.isFull() || r.keys.isFull() {
			if err := r.flushPage(ctx); err != nil {
				return err
			}
		}
	}
	r.end = t.EndLSN
	return nil
}

// hasChanges reports whether changes wait to be written, and isDue whether they have waited for long enough for further ones.
func (r *tableRun[T]) hasChanges() bool { return len(r.page.changes) > 0 || !r.keys.isEmpty() }

func (r *tableRun[T]) isDue() bool { return r.page.isDue() || r.keys.isDue() }

// flushPage writes the page, and only then confirms the slot: otherwise a crash between the two would lose the changes.
func (r *tableRun[T]) flushPage(ctx context.Context) error {
	if !r.hasChanges() && r.end == r.acknowledged {
		return nil
	}
	if err := r.writeChanges(ctx); err != nil {
		return err
	}
	if r.end == r.acknowledged {
		return nil
	}
	if err := r.stream.Ack(r.end); err != nil {
		return fmt.Errorf("confirming %s: %w", r.end, err)
	}
	r.acknowledged = r.end
	return nil
}

// writeChanges reads the rows of changed keys into the page, and writes it with the position.
func (r *tableRun[T]) writeChanges(ctx context.Context) error {
	if err := r.readKeys(ctx); err != nil {
		return err
	}
	if r.end != 0 {
		r.state.LSN = r.end.String()
	}
	return r.writePage(ctx)
}

func (r *tableRun[T]) writePage(ctx context.Context) error {
	if err := r.feed.Write(ctx, delta.FeedPage{Changes: r.page.changes, Position: r.state.formatText()}); err != nil {
		return err
	}
	r.page.clear()
	return nil
}

// beginReading begins to read the table as a whole, beside its changes.
func (r *tableRun[T]) beginReading(ctx context.Context, why string) error {
	shape, err := r.describeTable(ctx)
	if err != nil {
		return err
	}
	r.log.Info("bridge: the table is read as a whole", "table", r.config.Schema+"."+r.config.Table, "because", why)
	r.state.Read, r.state.Shape, r.again = false, shape, ""
	if err := r.writeChanges(ctx); err != nil {
		return err
	}
	if err := r.feed.BeginListing(ctx); err != nil {
		return err
	}
	// Each row comes in its place among the changes: as all those before have made it.
	r.backfill, err = r.stream.Backfill(ctx, cdc.BackfillConfig{Schema: r.config.Schema, Table: r.config.Table, ChunkSize: r.config.ChunkSize})
	if err != nil {
		r.feed.AbortListing(ctx, err)
		return err
	}
	r.isReading, r.unnamed, r.reason = true, 0, why
	r.reportProgress(time.Time{})
	return nil
}

// reportProgress reports the state of the table. All changes up to the time caughtUpTo were written; it does not count while the table is read as a whole.
func (r *tableRun[T]) reportProgress(caughtUpTo time.Time) {
	report := delta.FeedReport{CaughtUpTo: caughtUpTo, BehindBytes: r.behind}
	if r.isReading {
		report = delta.FeedReport{IsReading: true, Reason: r.reason, BehindBytes: r.behind}
	}
	r.feed.Report(report)
}

// endReading ends a listing whose rows have all come, and deletes what is not there.
func (r *tableRun[T]) endReading(ctx context.Context) error {
	if !r.isReading {
		if r.again == "" {
			return nil
		}
		return r.beginReading(ctx, r.again)
	}
	select {
	case <-r.backfill.Done():
	default:
		return nil
	}
	if err := r.backfill.Err(); err != nil {
		return fmt.Errorf("reading table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	if err := r.flushPage(ctx); err != nil {
		return err
	}
	r.isReading, r.lost = false, ""
	if r.unnamed > 0 {
		// Their resources would be taken for ones that are gone.
		err := fmt.Errorf("%d times a row cannot be mapped, and its key does not say which object it is: nothing is deleted", r.unnamed)
		r.feed.AbortListing(ctx, err)
		r.log.Warn("bridge: the table was read, and what it does not have any more is kept", "table", r.config.Schema+"."+r.config.Table, "error", err)
		r.state.Read = r.again == ""
		return r.writeChanges(ctx)
	}
	run, err := r.feed.EndListing(ctx)
	if err != nil {
		return err
	}
	r.state.Read = r.again == ""
	if err := r.writeChanges(ctx); err != nil {
		return err
	}
	r.log.Info("bridge: the table was read", "table", r.config.Schema+"."+r.config.Table,
		"rows", run.Listed, "new_or_changed", run.Scheduled, "refused", run.Refused, "deleted", run.Deleted, "withheld", run.Withheld)
	return nil
}

// abandonReading ends a listing that cannot be completed: nothing is deleted.
func (r *tableRun[T]) abandonReading(ctx context.Context, why error) {
	if r.isReading {
		r.feed.AbortListing(ctx, why)
		r.isReading = false
	}
	r.again = ""
	r.page.clear()
	r.keys.clear()
}

// checkDatabase checks conditions that the stream of changes does not show. An error ends the run, so that it is visible and another client can try.
func (r *tableRun[T]) checkDatabase(ctx context.Context) error {
	there, err := r.checkPublished(ctx)
	if err != nil {
		return err
	}
	if !there {
		r.state.Read = false // what changed without it cannot be read from the log
		if err := r.writeChanges(ctx); err != nil {
			return err
		}
		return fmt.Errorf("table %s.%s is no longer in publication %q: it was dropped, renamed, or taken out", r.config.Schema, r.config.Table, r.config.Publication)
	}
	if r.behind, err = r.measureLag(ctx); err != nil {
		return err
	}
	shape, err := r.describeTable(ctx)
	if err != nil {
		return err
	}
	approved, err := r.feed.IsDeletionApproved(ctx)
	switch {
	case err != nil:
		return err
	case shape != r.state.Shape:
		r.needRead("other columns are read than before, or of other types")
	case approved && !r.isReading:
		r.needRead("deletions that were withheld are approved")
	}
	return nil
}

func (r *tableRun[T]) checkPublished(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return r.isPublished(ctx)
}

// measureLag returns how many bytes of the log the slot has not confirmed; nil if the slot is gone, which the stream notices.
func (r *tableRun[T]) measureLag(ctx context.Context) (bytes *int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err = r.conn.QueryRow(ctx, `SELECT max(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
		confirmed_flush_lsn))::bigint FROM pg_replication_slots WHERE slot_name = $1`, r.config.Slot).Scan(&bytes)
	if err != nil {
		return nil, fmt.Errorf("measuring slot %q: %w", r.config.Slot, err)
	}
	return bytes, nil
}
