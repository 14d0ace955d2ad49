package activities

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
)

// TestDatabase gives a test of this package a database of its own. The tests outside of the package set it: deltatest imports this one.
var TestDatabase func(t *testing.T) *pgxpool.Pool

// LoseClaims marks all open claims lost, as if Postgres had not been reached in time.
func LoseClaims(c *Claims) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.open {
		k.mu.Lock()
		k.wasLost = true
		k.mu.Unlock()
	}
}
