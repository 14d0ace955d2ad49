package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// writeSettings writes this client's settings to the database, where they apply to all clients.
func (e *engine) writeSettings(ctx context.Context) error {
	q, c := db.New(), e.client
	for name, n := range c.config.Namespaces {
		var synced *time.Duration // nil if nobody has set one: then it differs by kind
		if c.retained.namespaces[name] {
			d := postgresInterval(n.SyncedResourceRetentionPeriod)
			synced = &d
		}
		before, err := q.UpsertNamespace(ctx, c.pool, db.UpsertNamespaceParams{
			Name:              name,
			ResourceExpiry:    postgresInterval(n.ResourceExpiry),
			SyncedRetention:   synced,
			DegradedRetention: postgresInterval(n.DegradedResourceRetentionPeriod),
			DeletedRetention:  postgresInterval(n.DeletedResourceRetentionPeriod),
			RateLimit:         n.RateLimit,
		})
		if err != nil {
			return fmt.Errorf("writing the settings of namespace %q: %w", name, schemaError(err))
		}
		for _, b := range before {
			c.config.Logger.Warn("this client changes the settings of a namespace, for all clients",
				"namespace", name,
				"expiry", n.ResourceExpiry, "expiry_before", orZero(b.ResourceExpiry),
				"synced_retention", retentionShown(synced), "synced_retention_before", retentionShown(b.SyncedRetention),
				"degraded_retention", n.DegradedResourceRetentionPeriod, "degraded_retention_before", orZero(b.DegradedRetention),
				"deleted_retention", n.DeletedResourceRetentionPeriod, "deleted_retention_before", orZero(b.DeletedRetention),
				"rate_limit", n.RateLimit, "rate_limit_before", orZero(b.RateLimit))
		}
	}
	var queue *string
	if c.config.TaskQueue != "" {
		queue = &c.config.TaskQueue
	}
	var unlisted []string
	for kind, r := range c.config.Controllers.byKind {
		rest := c.kindRetention(r)
		params := db.UpsertControllerParams{
			Name: kind, TaskQueue: queue, Finalizes: r.handler.Finalizes(), Informs: !c.config.DisableInformers,
			SyncedRetention: rest.SyncedRetention, DegradedRetention: rest.DegradedRetention, DeletedRetention: rest.DeletedRetention,
			DegradedRetry: rest.DegradedRetry, KeyConcurrency: int32(r.settings.KeyConcurrency), KeyRate: r.settings.KeyRate, //nolint:gosec // it has a bound
			LogsChanges: r.settings.Log, TouchedBy: append([]string{}, r.settings.TouchedBy...),
		}
		if params.Informs {
			spec, err := encodeSpec(r.settings.InformSchedule)
			if err != nil {
				return fmt.Errorf("kind %q: %w", kind, err)
			}
			params.InformInterval, params.InformSchedule = postgresInterval(e.informInterval(r)), spec
			if jitter := postgresInterval(c.config.ResourceInformJitter); jitter != 0 {
				params.InformJitter = &jitter
			}
			params.FullListingInterval, params.ListsNothing = r.settings.FullListingInterval, r.handler.ListsNothing()
			params.ListsAll = r.settings.detectsDeletions() && !r.handler.ListsNothing()
		}
		settings, err := q.UpsertController(ctx, c.pool, params)
		if err != nil {
			return fmt.Errorf("writing the settings of kind %q: %w", kind, schemaError(err))
		}
		e.warnOfKind(kind, r, settings)
		if len(settings.TouchedBy) == 0 { // nothing would touch their children
			if err := q.ForgetTouches(ctx, c.pool, kind); err != nil {
				return fmt.Errorf("forgetting the parents of kind %q that have changed: %w", kind, schemaError(err))
			}
		}
		if !settings.ListsAll { // deleted resources may wait for complete listings, which the kind may have had
			if _, err := db.WakeUnlisted(ctx, c.pool, kind, "", rest.DeletedRetention); err != nil {
				return fmt.Errorf("waking deleted resources of kind %q: %w", kind, schemaError(err))
			}
		}
		if c.config.DisableInformers && e.isUnlisted(r, settings) {
			unlisted = append(unlisted, kind)
		}
	}
	c.warnUnlisted(unlisted)
	return nil
}

// retentionShown formats a retention for the log.
func retentionShown(d *time.Duration) string {
	if d == nil {
		return "the default of each kind"
	}
	return d.String()
}

func (e *engine) informInterval(r registered) time.Duration {
	switch {
	case r.handler.ListsNothing():
		return -1
	case r.settings.InformSchedule != nil:
		return 0 // the schedule says when
	}
	if r.settings.InformInterval != 0 {
		return r.settings.InformInterval
	}
	return e.client.config.ResourceInformInterval
}
