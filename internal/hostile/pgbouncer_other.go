//go:build !unix

package hostile

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// PgBouncer skips the test: tests start one on Unix only.
func PgBouncer(tb testing.TB, _ *pgx.ConnConfig, _ int, _ ...string) *pgx.ConnConfig {
	tb.Helper()
	tb.Skip("PgBouncer is started on Unix only")
	return nil
}
