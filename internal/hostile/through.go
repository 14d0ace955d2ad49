package hostile

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PgBouncerSize is how many connections of the server PgBouncer has for a database.
const PgBouncerSize = 5

// pooledVariable has tests that know nothing of poolers go through one.
const pooledVariable = "DELTA_TEST_PGBOUNCER"

// Through returns how a test connects: as it is given, or through PgBouncer in transaction mode, where DELTA_TEST_PGBOUNCER is set. It has as many connections of the server
// as a pool of a test, so that transactions that wait for one another do not wait for a connection.
func Through(tb testing.TB, config *pgx.ConnConfig) *pgx.ConnConfig {
	tb.Helper()
	if !Pooled() {
		return config
	}
	through := PgBouncer(tb, config, 0, "default_pool_size=40", "max_client_conn=400")
	if through.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		through.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return through
}

// Pooled reports whether DELTA_TEST_PGBOUNCER is set.
func Pooled() bool { return os.Getenv(pooledVariable) != "" }

// NeedsDirect skips a test of what no pooler in transaction mode can do: why says what.
func NeedsDirect(tb testing.TB, why string) {
	tb.Helper()
	if Pooled() {
		tb.Skip("through PgBouncer: " + why)
	}
}
