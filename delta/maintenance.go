package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

const (
	// redispatchPage is how many resources one statement makes dispatchable again.
	redispatchPage = 2000
	// claimsKept is how long renewals of expired claims are kept.
	claimsKept = 10 * time.Minute
	// keysKept is how long unused limit keys are kept.
	keysKept = time.Hour
	// staleKept is how long a stale object is remembered that no pass lists any more.
	staleKept = 30 * 24 * time.Hour
)

// ensurePrefix marks the prefix in Temporal as this installation's. If Temporal should have the mark and does not, or has an
// older one than it had, it has lost everything or gone back: then all lifecycles are dispatched again from the rows. The
// mark comes last, so that after a crash in between the next client does the rest.
func (e *engine) ensurePrefix(ctx context.Context) error {
	mark, expected, err := e.readMark(ctx)
	if err != nil || (mark.isOurs && mark.heartbeat >= expected.heartbeat) {
		return err
	}
	if e.started {
		why := "Temporal does not know this installation: it was wiped or moved"
		if mark.isOurs {
			why = "Temporal has gone back: it was restored from a backup"
		}
		e.client.config.Logger.Warn(why+". All lifecycles are dispatched again", "prefix", e.names.prefix, "heartbeat", mark.heartbeat, "marked", expected.heartbeat)
		e.attributes.Store(e.ensureAttributes(ctx))
		if err := e.forgetScheduleChecks(ctx); err != nil {
			return err
		}
		if err := e.redispatchAll(ctx); err != nil {
			return fmt.Errorf("dispatching all lifecycles again: %w", err)
		}
	}
	if mark.isOurs {
		return retryUnanswered(ctx, func() error { return e.raiseMark(ctx, expected, 0) })
	}
	return retryUnanswered(ctx, func() error { return e.claimPrefix(ctx, expected) })
}

// redispatchAll dispatches all lifecycles again, page by page.
func (e *engine) redispatchAll(ctx context.Context) error {
	for after := int64(0); ; {
		page, err := e.forgetDispatchedPage(ctx, after)
		if err != nil || len(page) == 0 {
			return schemaError(err)
		}
		due := map[string]int{}
		for _, row := range page {
			after = max(after, row.ID)
			due[row.Kind]++
		}
		for kind, n := range due {
			e.client.wakeKind(kind, n)
		}
	}
}

func (e *engine) forgetDispatchedPage(ctx context.Context, after int64) ([]db.ForgetDispatchedRow, error) {
	ctx, cancel := context.WithTimeout(ctx, e.client.config.ResourceCleanerTimeout)
	defer cancel()
	return db.New().ForgetDispatched(ctx, db.Planned(e.client.pool, redispatchPage), db.ForgetDispatchedParams{AfterID: after, Batch: redispatchPage})
}

// runMaintenance checks at intervals that Temporal still has Delta's schedules and mark. The rows need no such check,
// because each has the time at which a dispatcher takes it.
func (e *engine) runMaintenance(ctx context.Context) {
	tick := time.NewTicker(e.client.config.MaintenanceJobInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := e.client.readNamespaces(ctx); err != nil && ctx.Err() == nil {
			e.client.config.Logger.Warn("reading the settings of namespaces failed; it is tried again", "error", err,
				"retry_in", e.client.config.MaintenanceJobInterval)
		}
		if err := e.maintainOnce(ctx); err != nil && ctx.Err() == nil {
			e.client.config.Logger.Warn("looking after Temporal failed; it is tried again", "error", err,
				"retry_in", e.client.config.MaintenanceJobInterval)
		}
	}
}

func (e *engine) maintainOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*e.client.config.ResourceCleanerTimeout)
	defer cancel()
	e.started = true
	return errors.Join(e.repairTemporal(ctx), e.sweepTables(ctx))
}

// repairTemporal creates again what is missing in Temporal.
func (e *engine) repairTemporal(ctx context.Context) error {
	if err := e.ensurePrefix(ctx); err != nil {
		return err
	}
	if err := e.beatHeart(ctx, heartbeatsEvery*e.client.config.MaintenanceJobInterval); err != nil {
		return err
	}
	if !e.attributes.Load() {
		e.attributes.Store(e.ensureAttributes(ctx))
	}
	errs := []error{e.checkSchedules(ctx)}
	for _, kind := range e.client.config.Controllers.kindNames() {
		errs = append(errs, e.startSources(ctx, kind))
	}
	return errors.Join(errs...)
}

// sweepTables removes expired rows of all tables. A failed step does not keep the others from running; the log of changes,
// which may be large, comes last.
func (e *engine) sweepTables(ctx context.Context) error {
	q, pool := db.New(), e.client.pool
	var errs []error
	for _, step := range []struct {
		doing string
		sweep func() error
	}{
		{"removing old renewals of claims", func() error { return q.SweepClaims(ctx, pool, claimsKept) }},
		{"removing limit keys that nothing uses", func() error { return q.SweepKeys(ctx, pool, keysKept) }},
		{"removing old records of commands", func() error { return q.SweepCommands(ctx, pool, commandsKept) }},
		{"removing old figures", func() error { return q.SweepFigures(ctx, pool, figuresKept) }},
		{"removing listings of passes that did not end", func() error { return db.SweepListings(ctx, pool, activities.ListingsKept) }},
		{"forgetting stale objects that are no longer listed", func() error { return db.SweepStale(ctx, pool, staleKept) }},
		{"removing deliveries that have expired", func() error { return e.sweepDeliveries(ctx) }},
		{"looking after the log of changes", func() error { return e.maintainChangeLog(ctx) }},
	} {
		if err := step.sweep(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.doing, err))
		}
	}
	return errors.Join(errs...)
}
