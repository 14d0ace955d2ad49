package delta

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// readNamespaces has the limits of namespaces hold on this client, as the database has them.
func (c *Client) readNamespaces(ctx context.Context) error {
	rows, err := db.New().ListNamespaces(ctx, c.pool)
	if err != nil {
		return fmt.Errorf("reading the settings of namespaces: %w", schemaError(err))
	}
	c.limits.set(c.boundsOf(rows))
	return nil
}

// boundsOf are the limits of all namespaces: MaxWorkers is the client's own, and RateLimit that of the database.
func (c *Client) boundsOf(rows []db.Namespace) map[string]namespaceBound {
	bounds := map[string]namespaceBound{}
	for name, n := range c.config.Namespaces {
		bounds[name] = namespaceBound{maxWorkers: n.MaxWorkers, rate: n.RateLimit}
	}
	for _, row := range rows {
		bound := bounds[row.Name]
		bound.rate = orZero(row.RateLimit)
		bounds[row.Name] = bound
	}
	return bounds
}
