package delta

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/migrations"
)

// Migrate brings Delta's schema up to date, in the first schema of the pool's search_path. It is safe to call from many
// processes at once, at every start: it does nothing if the schema is up to date.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	return migrations.Up(ctx, pool)
}
