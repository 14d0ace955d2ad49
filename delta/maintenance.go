package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

const (
	// forgetPage is how many resources one statement has dispatched anew.
	forgetPage = 2000
	// claimsKept is how long the renewals of claims are kept that are over.
	claimsKept = 10 * time.Minute
	// keysKept is how long limit keys are kept that nothing uses.
	keysKept = time.Hour
	// staleKept is how long a stale object is remembered that no pass lists any more.
	staleKept = 30 * 24 * time.Hour
)

// holdPrefix makes the prefix this installation's in Temporal. Where Temporal should know it and does not, it has lost
// everything: then all lifecycles are dispatched anew, from the rows. That comes before the mark, so that a client which
// dies in between leaves it to the next one.
func (e *engine) holdPrefix(ctx context.Context) error {
	held := false
	err := patiently(ctx, func() (err error) {
		held, err = prefixHeld(ctx, e.temporal, e.names, e.installation)
		return err
	})
	if err != nil || held {
		return err
	}
	if e.started {
		e.client.config.Logger.Warn("Temporal does not know this installation: it was wiped or moved. All lifecycles are dispatched anew",
			"prefix", e.names.prefix)
		e.attributes.Store(e.ensureAttributes(ctx))
		if err := e.dispatchAnew(ctx); err != nil {
			return fmt.Errorf("dispatching all lifecycles anew: %w", err)
		}
	}
	return patiently(ctx, func() error { return claimPrefix(ctx, e.temporal, e.names, e.installation) })
}

// dispatchAnew has all lifecycles dispatched anew, page by page.
func (e *engine) dispatchAnew(ctx context.Context) error {
	for after := int64(0); ; {
		page, err := e.forgetPage(ctx, after)
		if err != nil || len(page) == 0 {
			return schemaError(err)
		}
		kinds := map[string]bool{}
		for _, row := range page {
			after = max(after, row.ID)
			kinds[row.Kind] = true
		}
		for kind := range kinds {
			e.client.wakeKind(kind)
		}
	}
}

func (e *engine) forgetPage(ctx context.Context, after int64) ([]db.ForgetDispatchedRow, error) {
	ctx, cancel := context.WithTimeout(ctx, e.client.config.ResourceCleanerTimeout)
	defer cancel()
	return db.New().ForgetDispatched(ctx, db.Planned(e.client.pool, forgetPage), db.ForgetDispatchedParams{AfterID: after, Batch: forgetPage})
}

// maintain looks from time to time whether Temporal still has what Delta keeps there. The rows themselves need no such look:
// each has the time at which a dispatcher steps in.
func (e *engine) maintain(ctx context.Context) {
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
		if err := e.restore(ctx); err != nil && ctx.Err() == nil {
			e.client.config.Logger.Warn("looking after Temporal failed; it is tried again", "error", err,
				"retry_in", e.client.config.MaintenanceJobInterval)
		}
	}
}

func (e *engine) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*e.client.config.ResourceCleanerTimeout)
	defer cancel()
	e.started = true
	if err := db.New().SweepClaims(ctx, e.client.pool, claimsKept); err != nil {
		return fmt.Errorf("removing old renewals of claims: %w", err)
	}
	if err := db.New().SweepKeys(ctx, e.client.pool, keysKept); err != nil {
		return fmt.Errorf("removing limit keys that nothing uses: %w", err)
	}
	if err := db.New().SweepFigures(ctx, e.client.pool, figuresKept); err != nil {
		return fmt.Errorf("removing old figures: %w", err)
	}
	if err := db.SweepListings(ctx, e.client.pool, activities.ListingsKept); err != nil {
		return fmt.Errorf("removing what passes have listed that did not end: %w", err)
	}
	if err := db.SweepStale(ctx, e.client.pool, staleKept); err != nil {
		return fmt.Errorf("forgetting stale objects that are no longer listed: %w", err)
	}
	if err := e.maintainChangeLog(ctx); err != nil {
		return err
	}
	if err := e.sweepDeliveries(ctx); err != nil {
		return fmt.Errorf("removing deliveries that have expired: %w", err)
	}
	if err := e.holdPrefix(ctx); err != nil {
		return err
	}
	if !e.attributes.Load() {
		e.attributes.Store(e.ensureAttributes(ctx))
	}
	for _, kind := range e.client.config.Controllers.kinds() {
		if err := e.schedule(ctx, kind, true); err != nil {
			return err
		}
		if err := e.keepSources(ctx, kind); err != nil {
			return err
		}
	}
	return nil
}
