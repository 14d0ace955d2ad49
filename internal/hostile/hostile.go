// Package hostile creates databases and roles for tests, with unusual settings that somebody may have made for other programs. Code that runs on
// them must work, or return an error that names the setting.
package hostile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
)

// Family is a group of settings that are made together.
type Family struct {
	Name     string
	Settings []Setting
}

// Setting is a setting of Postgres.
type Setting struct {
	Name, Value string
	// Since is the first major version of Postgres that has the setting; 0 for all.
	Since int
}

// Names of the families for which packages have special rules.
const (
	Isolation   = "isolation"
	ReadOnly    = "read only"
	RowSecurity = "row security"
	Encoding    = "encoding"
	SearchPath  = "search path"
)

// Families returns all families. Those without a name above must not affect any package.
func Families() []Family {
	return []Family{
		{"formats", []Setting{
			{"datestyle", "SQL, DMY", 0},
			{"intervalstyle", "sql_standard", 0},
			{"timezone", "Asia/Kathmandu", 0},
			{"bytea_output", "escape", 0},
			{"extra_float_digits", "-15", 0},
			{"xmlbinary", "hex", 0},
			{"xmloption", "document", 0},
			{"lc_time", "C", 0},
			{"lc_numeric", "C", 0},
			{"lc_monetary", "POSIX", 0},
		}},
		{"reading", []Setting{
			{"standard_conforming_strings", "off", 0},
			{"backslash_quote", "off", 0},
			{"escape_string_warning", "on", 0},
			{"array_nulls", "off", 0},
			{"transform_null_equals", "on", 0},
			{"quote_all_identifiers", "on", 0},
			{"check_function_bodies", "off", 0},
		}},
		{"plans", []Setting{
			{"plan_cache_mode", "force_generic_plan", 0},
			{"enable_seqscan", "off", 0},
			{"enable_indexscan", "off", 0},
			{"enable_indexonlyscan", "off", 0},
			{"enable_nestloop", "off", 0},
			{"enable_hashjoin", "off", 0},
			{"enable_mergejoin", "off", 0},
			{"enable_sort", "off", 0},
			{"enable_hashagg", "off", 0},
			{"enable_material", "off", 0},
			{"jit", "off", 0},
			{"geqo_threshold", "2", 0},
			{"join_collapse_limit", "1", 0},
			{"work_mem", "64kB", 0},
			{"max_parallel_workers_per_gather", "2", 0},
			{"parallel_setup_cost", "0", 0},
			{"parallel_tuple_cost", "0", 0},
			{"min_parallel_table_scan_size", "0", 0},
			{"min_parallel_index_scan_size", "0", 0},
		}},
		{"timeouts", []Setting{
			{"lock_timeout", "300ms", 0},
			{"statement_timeout", "60s", 0},
			{"idle_in_transaction_session_timeout", "400ms", 0},
			{"idle_session_timeout", "400ms", 0},
			{"transaction_timeout", "60s", 17},
		}},
		{Isolation, []Setting{{"default_transaction_isolation", "serializable", 0}, {"default_transaction_deferrable", "on", 0}}},
		{ReadOnly, []Setting{{"default_transaction_read_only", "on", 0}}},
		{RowSecurity, []Setting{{"row_security", "off", 0}}},
		{Encoding, []Setting{{"client_encoding", "LATIN1", 0}}},
		{SearchPath, []Setting{{"search_path", "pg_temp, nowhere", 0}}},
	}
}

// Patient begins a transaction of a test itself that may be idle for longer than the idle_in_transaction_session_timeout of its role: on a machine
// that stands still, a test that does nothing else is idle for long.
var Patient = pgx.TxOptions{BeginQuery: "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0"}

// Case is a family of settings, and the kind of object that has them: a role or a database.
type Case struct {
	Family
	Place string
}

// Name names the case.
func (c Case) Name() string { return c.Family.Name + " of the " + c.Place }

// Cases returns each family, in turn of a role and of a database, because a session that has begun with a setting does not know which of them has it. Those
// that code refuses with the place's name are there for both. Unless a run is whole, families that must affect nothing are one, so that a failure does not
// tell which: `make test ALL=1` does.
func Cases() (all []Case) {
	places := []string{"role", "database"}
	families := Families()
	if !soak.IsWhole() {
		families = joinHarmless(families)
	}
	for i, family := range families {
		if family.Name == Isolation || family.Name == ReadOnly {
			all = append(all, Case{family, places[0]}, Case{family, places[1]})
			continue
		}
		all = append(all, Case{family, places[i%len(places)]})
	}
	return all
}

// joinHarmless joins the families that no package has special rules for.
func joinHarmless(families []Family) []Family {
	special := []string{Isolation, ReadOnly, RowSecurity, Encoding, SearchPath}
	joined := []Family{{Name: "harmless settings"}}
	for _, family := range families {
		if slices.Contains(special, family.Name) {
			joined = append(joined, family)
		} else {
			joined[0].Settings = append(joined[0].Settings, family.Settings...)
		}
	}
	return joined
}

// Make creates a role that may replicate and a database owned by it, and sets the settings of a case on one of them. It returns the configuration to
// connect as the role. admin connects as a superuser to another database. The end of the test drops everything.
func Make(tb testing.TB, admin *pgx.ConnConfig, c Case) *pgx.ConnConfig {
	tb.Helper()
	config := MakeEncoded(tb, admin, "UTF8")
	server := connectTo(tb, admin)
	defer closeConn(server)
	var version int
	require.NoError(tb, server.QueryRow(tb.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&version))
	on := map[string]string{"role": "ROLE " + config.User, "database": "DATABASE " + config.Database}[c.Place]
	for _, s := range c.Settings {
		if version < s.Since {
			continue
		}
		value := "'" + s.Value + "'"
		switch s.Name {
		case "search_path": // a list
			value = s.Value
		case "lc_monetary":
			value = "'" + foreignMoney(tb, server) + "'"
		}
		execStatement(tb, server, fmt.Sprintf("ALTER %s SET %s = %s", on, s.Name, value))
	}
	return config
}

// foreignMoney returns a locale of the server that formats money differently from C: 1.234,50 € and not $1,234.50. Few machines have one
// (localedef -i de_DE -f UTF-8 de_DE.UTF-8 makes it, with Debian's package locales); otherwise it returns C under another name.
func foreignMoney(tb testing.TB, server *pgx.Conn) string {
	tb.Helper()
	for _, locale := range []string{"de_DE.UTF-8", "de_DE.utf8"} {
		if _, err := server.Exec(tb.Context(), "SELECT pg_catalog.set_config('lc_monetary', $1, true)", locale); err == nil {
			return locale
		}
	}
	return "POSIX"
}

// MakeEncoded creates a role that may replicate, and a database with an encoding, owned by it.
func MakeEncoded(tb testing.TB, admin *pgx.ConnConfig, encoding string) *pgx.ConnConfig {
	tb.Helper()
	name := "hostile_" + strings.ToLower(rand.Text()[:12])
	server := connectTo(tb, admin)
	defer closeConn(server)
	execStatement(tb, server, "CREATE ROLE "+name+" LOGIN REPLICATION PASSWORD 'x'")
	tb.Cleanup(func() { dropDatabase(tb, admin, name) })
	execStatement(tb, server, "CREATE DATABASE "+name+" OWNER "+name+" TEMPLATE template0 ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C'")
	config := admin.Copy()
	config.Database, config.User, config.Password = name, name, "x"
	return config
}

// defaultSettings are the usual values of settings that a family may change.
var defaultSettings = map[string]string{
	"client_encoding": "UTF8", "default_transaction_read_only": "off", "default_transaction_isolation": "read committed", "search_path": "public",
	"standard_conforming_strings": "on", "array_nulls": "on", "transform_null_equals": "off", "lock_timeout": "0", "statement_timeout": "0",
	"idle_in_transaction_session_timeout": "0", "synchronous_commit": "on",
}

// Owner connects to the database of a role as a superuser that acts as the role, with default settings.
func Owner(tb testing.TB, admin, config *pgx.ConnConfig) *pgx.Conn {
	tb.Helper()
	there := admin.Copy()
	there.Database = config.Database
	maps.Copy(there.RuntimeParams, defaultSettings)
	conn := connectTo(tb, there)
	tb.Cleanup(func() { closeConn(conn) })
	execStatement(tb, conn, "SET idle_session_timeout = 0")
	execStatement(tb, conn, "SET ROLE "+config.User)
	return conn
}

// dropDatabase tries again while the database is in use, because the reader of a slot takes a moment to end.
func dropDatabase(tb testing.TB, admin *pgx.ConnConfig, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server, err := pgx.ConnectConfig(ctx, admin.Copy())
	require.NoError(tb, err)
	defer closeConn(server)
	for _, statement := range []string{
		"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '" + name + "'",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '" + name + "'",
		"DROP DATABASE IF EXISTS " + name + " WITH (FORCE)",
		"DROP ROLE " + name,
	} {
		_, err := server.Exec(ctx, statement)
		for isInUse(err) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			_, err = server.Exec(ctx, statement)
		}
		require.NoError(tb, err, statement)
	}
}

func isInUse(err error) bool {
	const objectInUse = "55006"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == objectInUse
}

func connectTo(tb testing.TB, config *pgx.ConnConfig) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.ConnectConfig(tb.Context(), config.Copy())
	require.NoError(tb, err)
	return conn
}

func closeConn(conn *pgx.Conn) { _ = conn.Close(context.Background()) }

func execStatement(tb testing.TB, conn *pgx.Conn, statement string) {
	tb.Helper()
	_, err := conn.Exec(tb.Context(), statement)
	require.NoError(tb, err, statement)
}
