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
	// forgetPage is how many resources one statement has dispatched anew.
	redispatchPage = 2000
	// claimsKept is how long the renewals of claims are kept that are over.
	claimsKept = 10 * time.Minute
	// keysKept is how long limit keys are kept that nothing uses.
	keysKept = time.Hour
	// staleKept is how long a stale object is remembered that no pass lists any more.
	staleKept = 30 * 24 * time.Hour
)

// ensurePrefix makes the prefix this installation's in Temporal. Where Temporal should know it and does not, it has lost
// everything: then all lifecycles are dispatched anew, from the rows. That comes before the mark, so that a client which
// dies in between leaves it to the next one.
func (e *engine) ensurePrefix(ctx context.Context) error {
	held, err := isPrefixOwned(ctx, e.temporal, e.names, e.installation)
	if err != nil || held {
		return err
	}
	if e.started {
		e.client.config.Logger.Warn("Temporal does not know this installation: it was wiped or moved. All lifecycles are dispatched anew",
			"prefix", e.names.prefix)
		e.attributes.Store(e.ensureAttributes(ctx))
		if err := e.redispatchAll(ctx); err != nil {
			return fmt.Errorf("dispatching all lifecycles anew: %w", err)
		}
	}
	return retryUnanswered(ctx, func() error { return claimPrefix(ctx, e.temporal, e.names, e.installation) })
}

// redispatchAll has all lifecycles dispatched anew, page by page.
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

// runMaintenance looks from time to time whether Temporal still has what Delta keeps there. The rows themselves need no such look:
// each has the time at which a dispatcher steps in.
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

// repairTemporal starts again what is missing in Temporal.
func (e *engine) repairTemporal(ctx context.Context) error {
	if err := e.ensurePrefix(ctx); err != nil {
		return err
	}
	if !e.attributes.Load() {
		e.attributes.Store(e.ensureAttributes(ctx))
	}
	var errs []error
	for _, kind := range e.client.config.Controllers.kindNames() {
		errs = append(errs, e.writeSchedules(ctx, kind, true), e.startSources(ctx, kind))
	}
	return errors.Join(errs...)
}

// sweepTables removes what is not needed any more. What fails keeps nothing else from being removed; the log of changes, which may be large, comes last.
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
		{"removing what passes have listed that did not end", func() error { return db.SweepListings(ctx, pool, activities.ListingsKept) }},
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
