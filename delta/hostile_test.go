package delta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// visitor is an installation in its own database, with its own role. Temporal and the prefix are the harness's.
type visitor struct {
	*harness
	config *pgx.ConnConfig
	mode   pgx.QueryExecMode
	pool   *pgxpool.Pool
}

func newVisitor(t *testing.T, make func(admin *pgx.ConnConfig) *pgx.ConnConfig) *visitor {
	t.Helper()
	hostile.NeedsDirect(t, "it has a role, a database and a pooler of its own")
	h := newHarness(t)
	admin := h.Pool.Config().ConnConfig
	delete(admin.RuntimeParams, "search_path")
	delete(admin.RuntimeParams, "application_name")
	o := &visitor{harness: h, config: make(admin), mode: pgx.QueryExecModeCacheStatement}
	o.pool = o.openPool(nil)
	return o
}

// openPool opens a pool with other parameters of its connections.
func (o *visitor) openPool(params map[string]string) *pgxpool.Pool {
	o.t.Helper()
	settings, err := pgxpool.ParseConfig("")
	require.NoError(o.t, err)
	settings.ConnConfig, settings.MaxConns = o.config.Copy(), 8
	for name, value := range params {
		settings.ConnConfig.RuntimeParams[name] = value
	}
	settings.ConnConfig.DefaultQueryExecMode = o.mode
	// By default, the pool checks only connections that were idle for a second, which is longer than the server lets them be.
	settings.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	pool, err := pgxpool.NewWithConfig(o.t.Context(), settings)
	require.NoError(o.t, err)
	o.t.Cleanup(pool.Close)
	return pool
}

func (o *visitor) clientOn(pool *pgxpool.Pool, config *delta.Config) *delta.Client {
	o.t.Helper()
	c, err := delta.NewClient(pool, config)
	require.NoError(o.t, err)
	o.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	})
	return c
}

// awaitSettled waits until all resources of a kind are synced.
func (o *visitor) awaitSettled(kind string, n int) {
	o.t.Helper()
	until(o.t, func() bool {
		var done int
		err := o.pool.QueryRow(context.Background(), "SELECT count(*)::int FROM delta_resource WHERE kind = $1 AND state = 'synced'", kind).Scan(&done)
		return err == nil && done == n
	}, kind)
}

// controllers returns a Config with kinds of different sorts: singles with CompleteTx, batches with limit keys, and a listed kind.
func (o *visitor) controllers(listed int) *delta.Config {
	return o.harness.config(
		with(&controller[account]{work: func(ctx context.Context, r *delta.Resource[account]) error {
			return pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", r.ObjectID); err != nil {
					return err
				}
				return r.CompleteTx(ctx, tx)
			})
		}}),
		with(&controller[batchedTenant]{}),
		with(&controller[measuredKind]{inform: func(context.Context, *delta.InformOptions) (<-chan measuredKind, error) {
			all := make(chan measuredKind, listed)
			for i := range listed {
				all <- measuredKind{account{Name: fmt.Sprint("listed ", i)}}
			}
			close(all)
			return all, nil
		}}))
}

// useAll informs, works, completes, lists and reads, and checks that everything works as on any database.
func (o *visitor) useAll() {
	o.t.Helper()
	ctx := o.t.Context()
	_, err := o.pool.Exec(ctx, "CREATE TABLE effects (name text)")
	require.NoError(o.t, err)
	c := o.clientOn(o.pool, o.controllers(30))
	require.NoError(o.t, c.Start(context.Background()))

	const name = `a\b 'c' "d" É€ NULL`
	opts := &delta.InformOpts{Tags: []string{"NULL", "tag-1"}, Metadata: []byte(`{"at": "2026-01-02T03:04:05Z", "n": 0.1}`)}
	_, err = c.Inform(ctx, account{Name: name, Plan: "gold"}, opts)
	require.NoError(o.t, err)
	require.NoError(o.t, pgx.BeginTxFunc(ctx, o.pool, hostile.Patient, func(tx pgx.Tx) error {
		_, err := c.InformTx(ctx, tx, account{Name: "tx"}, nil)
		return err
	}))
	var tenants []delta.Object
	for i := range 40 {
		tenants = append(tenants, batchedTenant{tenant{Name: fmt.Sprint(i), Key: fmt.Sprint("key ", i%3)}})
	}
	_, err = c.InformMany(ctx, tenants, nil)
	require.NoError(o.t, err)
	run, err := c.RunInform(ctx, delta.ScheduleInformParams{ResourceKind: "measured"}, nil)
	require.NoError(o.t, err)
	require.Equal(o.t, 30, run.Listed)
	o.awaitSettled("account", 2)
	o.awaitSettled("batched_tenant", 40)
	o.awaitSettled("measured", 30)

	row, err := c.Get(ctx, "account", name)
	require.NoError(o.t, err)
	require.JSONEq(o.t, `{"name": "a\\b 'c' \"d\" É€ NULL", "plan": "gold"}`, string(row.EncodedObject))
	require.Equal(o.t, []string{"NULL", "tag-1"}, row.Tags)
	require.JSONEq(o.t, string(opts.Metadata), string(row.Metadata))
	require.WithinDuration(o.t, time.Now(), *row.SyncedAt, time.Hour)
	require.Equal(o.t, time.UTC, row.SyncedAt.Location())
	var effects int
	require.NoError(o.t, o.pool.QueryRow(ctx, "SELECT count(*)::int FROM effects").Scan(&effects))
	require.Equal(o.t, 2, effects, "once each")
	_, err = c.Explain(ctx, "account", name)
	require.NoError(o.t, err)
	_, err = c.Kinds(ctx)
	require.NoError(o.t, err)
}

func TestSettingsOfARoleOrADatabaseChangeNothingOrAreNamed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, c := range hostile.Cases() {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.Make(t, admin, c) })
			err := delta.Migrate(t.Context(), o.pool)
			switch c.Family.Name {
			case hostile.SearchPath:
				require.ErrorContains(t, err, `there is no schema of search_path "pg_temp, nowhere"`)
				return
			case hostile.ReadOnly:
				require.ErrorContains(t, err, "default_transaction_read_only is on for the role, the database")
				require.NoError(t, delta.Migrate(t.Context(), o.openPool(map[string]string{"default_transaction_read_only": "off"})))
				o.requireRefusal(c.Place, "default_transaction_read_only")
			case hostile.Isolation:
				require.NoError(t, err)
				o.requireRefusal(c.Place, "default_transaction_isolation")
			case hostile.Encoding:
				require.NoError(t, err)
				o.requireEncodingRefusal()
			default:
				require.NoError(t, err)
				require.NoError(t, delta.Migrate(t.Context(), o.pool), "once more")
				o.useAll()
			}
		})
	}
}

// requireRefusal checks that a client does not start with a hostile setting, names the setting and its origin, and starts if its pool overrides it.
func (o *visitor) requireRefusal(place, name string) {
	o.t.Helper()
	err := o.clientOn(o.pool, o.controllers(0)).Start(context.Background())
	bad := new(delta.InputError)
	require.ErrorAs(o.t, err, &bad)
	require.Equal(o.t, name, bad.Field)
	require.ErrorContains(o.t, err, "the "+place+" (ALTER ")
	o.pool = o.openPool(map[string]string{"default_transaction_read_only": "off", "default_transaction_isolation": "read committed"})
	o.useAll()
}

// requireEncodingRefusal checks that nothing is written by connections with another client encoding.
func (o *visitor) requireEncodingRefusal() {
	o.t.Helper()
	ctx := o.t.Context()
	c := o.clientOn(o.pool, o.controllers(0))
	refused := func(err error) {
		o.t.Helper()
		bad := new(delta.InputError)
		require.ErrorAs(o.t, err, &bad)
		require.Equal(o.t, "client_encoding", bad.Field)
		require.Equal(o.t, `"LATIN1"`, bad.Value)
	}
	refused(c.Start(context.Background()))
	_, err := c.Inform(ctx, account{Name: "café"}, nil)
	refused(err)
	_, err = c.InformMany(ctx, []delta.Object{account{Name: "café"}, account{Name: "b"}}, nil)
	refused(err)
	right := o.openPool(map[string]string{"client_encoding": "UTF8"})
	tx, err := o.pool.Begin(ctx)
	require.NoError(o.t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = o.clientOn(right, o.controllers(0)).InformTx(ctx, tx, account{Name: "café"}, nil)
	refused(err)
	o.pool = right
	o.useAll()
}

func TestADatabaseOfAnotherEncodingIsRefused(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "EUC_JP", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.MakeEncoded(t, admin, encoding) })
			for _, pool := range []*pgxpool.Pool{o.pool, o.openPool(map[string]string{"client_encoding": "UTF8"})} {
				require.ErrorContains(t, delta.Migrate(t.Context(), pool), "the encoding of the database is "+encoding+", and Delta needs UTF8")
				_, err := o.clientOn(pool, o.harness.config()).Inform(t.Context(), account{Name: "a"}, nil)
				bad := new(delta.InputError)
				require.ErrorAs(t, err, &bad)
				require.Equal(t, "server_encoding", bad.Field)
			}
		})
	}
}

func TestATableThatAPolicyHidesIsNamed(t *testing.T) {
	t.Parallel()
	o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.MakeEncoded(t, admin, "UTF8") })
	require.NoError(t, delta.Migrate(t.Context(), o.pool))
	_, err := o.pool.Exec(t.Context(), "ALTER TABLE delta_resource ENABLE ROW LEVEL SECURITY; ALTER TABLE delta_resource FORCE ROW LEVEL SECURITY;"+
		"CREATE POLICY mine ON delta_resource USING (namespace = 'mine')")
	require.NoError(t, err)
	err = o.clientOn(o.pool, o.controllers(0)).Start(context.Background())
	bad := new(delta.InputError)
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "row-level security", bad.Field)
	require.Equal(t, `"delta_resource"`, bad.Value)
	_, err = o.pool.Exec(t.Context(), "ALTER TABLE delta_resource NO FORCE ROW LEVEL SECURITY")
	require.NoError(t, err)
	require.NoError(t, o.clientOn(o.pool, o.controllers(0)).Start(context.Background()))
}

// A listener is idle while nothing is informed.
func TestTheListenerOutlivesTheIdleTimeoutsOfItsRole(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	idle := hostile.Case{Place: "role", Family: hostile.Family{Settings: []hostile.Setting{{Name: "idle_session_timeout", Value: "1s"}}}}
	o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.Make(t, admin, idle) })
	require.NoError(t, delta.Migrate(t.Context(), o.pool))
	require.NoError(t, o.clientOn(o.pool, o.controllers(0)).Start(context.Background()))
	var first int64
	listener := func() (pid int64) {
		_ = o.Pool.QueryRow(t.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN %'", o.config.Database).Scan(&pid)
		return pid
	}
	until(t, func() bool {
		first = listener()
		return first != 0
	})
	time.Sleep(3 * time.Second) // longer than the timeout
	require.Equal(t, first, listener())
}

// Behind a pooler in transaction mode, LISTEN succeeds, but no notification arrives.
func TestAClientBehindAPoolerSaysThatItHearsNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.MakeEncoded(t, admin, "UTF8") })
	require.NoError(t, delta.Migrate(t.Context(), o.pool))
	direct := o.pool
	o.config = hostile.Pooler(t, o.config)
	config := o.controllers(0)
	config.DispatchPollInterval = 100 * time.Millisecond
	c := o.clientOn(o.openPool(nil), config)
	require.NoError(t, c.Start(context.Background()))
	until(t, func() bool {
		return strings.Contains(fmt.Sprint(c.Health(t.Context())), "a pooler in transaction mode")
	})
	_, err := o.clientOn(direct, o.harness.config()).Inform(t.Context(), batchedTenant{tenant{Name: "a"}}, nil)
	require.NoError(t, err)
	o.awaitSettled("batched_tenant", 1)
}

func TestThroughPgBouncer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for prepared, mode := range map[int]pgx.QueryExecMode{200: pgx.QueryExecModeCacheStatement, 0: pgx.QueryExecModeCacheDescribe} {
		t.Run(fmt.Sprint("max_prepared_statements ", prepared), func(t *testing.T) {
			t.Parallel()
			o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.MakeEncoded(t, admin, "UTF8") })
			o.mode = mode
			require.NoError(t, delta.Migrate(t.Context(), o.pool))
			o.config = hostile.PgBouncer(t, o.config, prepared)
			o.pool = o.openPool(nil)
			require.ErrorContains(t, delta.Migrate(t.Context(), o.pool), "migrate through a direct connection")
			o.useAll()
		})
	}
}

// If a pooler switches the server connection, prepared statements fail, with an error that names the remedy.
func TestAPoolerWithoutPreparedStatementsIsNamed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	o := newVisitor(t, func(admin *pgx.ConnConfig) *pgx.ConnConfig { return hostile.MakeEncoded(t, admin, "UTF8") })
	require.NoError(t, delta.Migrate(t.Context(), o.pool))
	o.config = hostile.PgBouncer(t, o.config, 0)
	pools := []*pgxpool.Pool{o.openPool(nil), o.openPool(nil)}
	until(t, func() bool {
		for _, pool := range pools {
			if _, err := o.clientOn(pool, o.harness.config()).Inform(t.Context(), account{Name: "a"}, nil); err != nil {
				require.ErrorContains(t, err, "max_prepared_statements")
				return true
			}
		}
		return false
	})
}
