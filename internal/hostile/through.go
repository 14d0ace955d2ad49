package hostile

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PgBouncerSize is how many connections of the server PgBouncer has for a database.
const PgBouncerSize = 5

// pooledVariable makes tests that know nothing of poolers connect through one.
const pooledVariable = "DELTA_TEST_PGBOUNCER"

// Through returns the configuration with which a test connects: config itself or, if DELTA_TEST_PGBOUNCER is set, through PgBouncer in transaction
// mode. That has as many server connections as a pool of a test, so that transactions that wait for each other never wait for a connection.
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

// NeedsDirect skips a test that cannot pass behind a pooler in transaction mode, for the reason given.
func NeedsDirect(tb testing.TB, why string) {
	tb.Helper()
	if Pooled() {
		tb.Skip("through PgBouncer: " + why)
	}
}
