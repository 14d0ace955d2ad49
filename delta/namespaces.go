package delta

import (
	"context"
	"fmt"
	"slices"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// readNamespaces applies the limits of namespaces in the database to this client, and returns the namespaces.
func (c *Client) readNamespaces(ctx context.Context) ([]db.Namespace, error) {
	rows, err := db.New().ListNamespaces(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("reading the settings of namespaces: %w", schemaError(err))
	}
	c.limits.setBounds(c.boundsOf(rows))
	return rows, nil
}

// warnOverridden warns of namespaces for which this client's configuration has no effect.
func (c *Client) warnOverridden(namespaces []db.Namespace) {
	for _, n := range namespaces {
		if _, ok := c.config.Namespaces[n.Name]; ok && n.Overridden {
			c.config.Logger.Warn("a namespace was set while clients ran, and Config.Namespaces does not change it; delta namespaces reset does",
				"namespace", n.Name)
		}
	}
}

// namespacesChanged is notified like a kind; no kind has a '/' in its name.
const namespacesChanged = "/namespaces"

// handleNotification handles a notification: of a kind with due rows, or of changed namespaces.
func (e *engine) handleNotification(ctx context.Context, what string) {
	if what != namespacesChanged {
		e.client.wakeOwnDispatcher(what, 1)
		return
	}
	if _, err := e.client.readNamespaces(ctx); err != nil && ctx.Err() == nil {
		e.client.config.Logger.Warn("reading the settings of namespaces failed; maintenance tries again", "error", err)
	}
}

// SetNamespace sets a namespace while clients run, for all of them and for later ones, including MaxWorkers, and overrides
// their Config.Namespaces until [Client.ResetNamespace]. A field at zero is left to each client: its MaxWorkers for the
// namespace, and its retentions. Settled resources of the namespace are rescheduled: their expiry and retention count from
// when they settled. It returns when everything is written. If it fails in between, call it again.
func (c *Client) SetNamespace(ctx context.Context, name string, n NamespaceConfig) error {
	if err := checkName("namespace", name); err != nil {
		return fmt.Errorf("delta: set namespace: %w", err)
	}
	if err := n.validate("namespace " + name); err != nil {
		return fmt.Errorf("delta: set namespace: %w", err)
	}
	return c.writeNamespace(ctx, name, n, true)
}

// ResetNamespace returns a namespace to the configuration of clients: MaxWorkers at once, and the other fields when the
// next client starts whose Config has the namespace. Until then they have the clients' defaults.
func (c *Client) ResetNamespace(ctx context.Context, name string) error {
	if err := checkName("namespace", name); err != nil {
		return fmt.Errorf("delta: reset namespace: %w", err)
	}
	return c.writeNamespace(ctx, name, NamespaceConfig{}, false)
}

func (c *Client) writeNamespace(ctx context.Context, name string, n NamespaceConfig, overridden bool) error {
	err := db.New().SetNamespace(ctx, c.pool, db.SetNamespaceParams{
		Name: name, ResourceExpiry: postgresInterval(n.ResourceExpiry), SyncedRetention: postgresInterval(n.SyncedResourceRetentionPeriod),
		DegradedRetention: postgresInterval(n.DegradedResourceRetentionPeriod), DeletedRetention: postgresInterval(n.DeletedResourceRetentionPeriod),
		RateLimit: n.RateLimit, MaxWorkers: int32(n.MaxWorkers), Overridden: overridden, //nolint:gosec // it has a bound
	})
	if err == nil {
		_, err = c.readNamespaces(ctx)
	}
	if err == nil {
		err = c.rescheduleSettled(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("delta: setting namespace %s: %w", name, schemaError(err))
	}
	c.notifier.notifySoon(namespacesChanged)
	return nil
}

// rescheduleSettled reschedules the settled resources of a namespace by its new settings, page by page.
func (c *Client) rescheduleSettled(ctx context.Context, namespace string) error {
	page := db.MatchingResourcesParams{
		States: []string{"synced", "degraded", "deleted"}, Namespaces: []string{namespace}, Shards: []string{}, Kinds: []string{}, ObjectIds: []string{},
		Tags: []string{}, Labels: []byte("{}"), Batch: redispatchPage,
	}
	for {
		ids, err := db.New().MatchingResources(ctx, c.pool, page)
		if err != nil || len(ids) == 0 {
			return err
		}
		page.AfterID = ids[len(ids)-1]
		kinds, err := db.New().RescheduleSettled(ctx, db.Planned(c.pool, len(ids)), db.RescheduleSettledParams{
			Ids: ids, Namespace: namespace, Earliest: activities.MaxExpirySpread,
		})
		if err != nil {
			return err
		}
		slices.Sort(kinds)
		for _, kind := range slices.Compact(kinds) {
			c.wakeKind(kind, 1)
		}
	}
}

// boundsOf returns the limits of all namespaces. MaxWorkers is the client's own unless the database has one; RateLimit is
// that of the database.
func (c *Client) boundsOf(rows []db.Namespace) map[string]namespaceBound {
	bounds := map[string]namespaceBound{}
	for name, n := range c.config.Namespaces {
		bounds[name] = namespaceBound{maxWorkers: n.MaxWorkers, rate: n.RateLimit}
	}
	for _, row := range rows {
		bound := bounds[row.Name]
		bound.rate = orZero(row.RateLimit)
		if row.MaxWorkers != nil {
			bound.maxWorkers = int(*row.MaxWorkers)
		}
		bounds[row.Name] = bound
	}
	return bounds
}
