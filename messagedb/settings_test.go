package messagedb_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

func poolOf(t *testing.T, config *pgx.ConnConfig) *pgxpool.Pool {
	t.Helper()
	pooled := databaseConfig(config.Database)
	pooled.ConnConfig = config.Copy()
	// By default the pool looks only at connections that were idle for a second, which is longer than the server lets them be.
	pooled.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	pool, err := pgxpool.NewWithConfig(t.Context(), pooled)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func clientOf(t *testing.T, pool *pgxpool.Pool) *messagedb.Client {
	t.Helper()
	c, err := messagedb.NewClient(pool, &messagedb.Config{Logger: quiet, Notify: true, Polling: messagedb.ConstantPolling(20 * time.Millisecond)})
	require.NoError(t, err)
	return c
}

func TestSettingsOfARoleOrADatabaseChangeNothingOrAreNamed(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	start(t)
	for _, c := range hostile.Cases() {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			pool := poolOf(t, hostile.Make(t, server.admin, c))
			err := messagedb.Migrate(t.Context(), pool, "")
			switch c.Family.Name {
			case hostile.ReadOnly:
				require.ErrorContains(t, err, "default_transaction_read_only is on for the role, the database")
			case hostile.Encoding:
				refusesEncoding(t, err, "LATIN1")
			default:
				require.NoError(t, err)
				require.NoError(t, messagedb.Migrate(t.Context(), pool, ""), "once more")
				useTheStore(t, pool)
			}
		})
	}
}

func TestThroughPgBouncer(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	start(t)
	for prepared, mode := range map[int]pgx.QueryExecMode{200: pgx.QueryExecModeCacheStatement, 0: pgx.QueryExecModeCacheDescribe} {
		t.Run(fmt.Sprint("max_prepared_statements ", prepared), func(t *testing.T) {
			t.Parallel()
			config := hostile.MakeEncoded(t, server.admin, "UTF8")
			require.NoError(t, messagedb.Migrate(t.Context(), poolOf(t, config), ""))
			config = hostile.PgBouncer(t, config, prepared)
			config.DefaultQueryExecMode = mode
			pool := poolOf(t, config)
			require.ErrorContains(t, messagedb.Migrate(t.Context(), pool, ""), "migrate through a direct connection")
			useTheStore(t, pool)

			// Also where the pooler has no second connection to give.
			for range hostile.PgBouncerSize - 1 {
				tx, err := pool.Begin(t.Context())
				require.NoError(t, err)
				defer func() { _ = tx.Rollback(t.Context()) }()
				_, err = tx.Exec(t.Context(), "SELECT 1")
				require.NoError(t, err)
			}
			require.ErrorContains(t, messagedb.Migrate(t.Context(), poolOf(t, config), ""), "migrate through a direct connection")
		})
	}
}

// useTheStore writes and reads in every way there is.
func useTheStore(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	ctx := t.Context()
	c := clientOf(t, pool)
	useEverything(t, c)
	tx, err := pool.BeginTx(ctx, hostile.Patient)
	require.NoError(t, err)
	useEverything(t, c.InTx(tx))
	require.NoError(t, tx.Commit(ctx))

	got := make(chan *messagedb.Message, 1)
	live := make(chan struct{}, 1)
	handle := func(_ context.Context, m *messagedb.Message) error {
		got <- m
		return nil
	}
	subscription, err := c.SubscribeToCategory(ctx, "café", handle, messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{
		Notify: true, Liveness: func(is bool) {
			if is {
				live <- struct{}{}
			}
		},
	})
	require.NoError(t, err)
	defer subscription.Stop()
	<-live
	time.Sleep(time.Second) // longer than the idle timeouts of the role
	before := time.Now().Add(-time.Hour)
	_, err = c.WriteMessage(ctx, "café-1", messagedb.ProposedMessage{Type: "T", Data: []string{`a\b 'c'`, "NULL", "é€"}, ID: messagedb.NewID()},
		messagedb.AnyVersion, messagedb.Idempotent())
	require.NoError(t, err)
	m := <-got
	require.JSONEq(t, `["a\\b 'c'", "NULL", "é€"]`, string(m.Data))
	require.Equal(t, messagedb.StreamName("café-1"), m.Stream)
	require.WithinRange(t, m.Time, before, time.Now().Add(time.Hour), "in UTC")
	useReaders(t, c, pool)
}

// useReaders reads a message with each reader that keeps a position: a consumer, a projector and an entity with snapshots.
func useReaders(t *testing.T, c *messagedb.Client, pool *pgxpool.Pool) {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, messagedb.MigrateProjections(ctx, pool, ""))
	_, err := pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS public.seen (data text)")
	require.NoError(t, err)
	consumed := make(chan string, 10)
	consumer, err := c.NewConsumer(messagedb.ConsumerConfig{
		Category: "café", Identifier: "é", Handler: func(_ context.Context, m *messagedb.Message) error { consumed <- string(m.Data); return nil },
	})
	require.NoError(t, err)
	projected := make(chan string, 10)
	projector, err := c.NewProjector(messagedb.ProjectorConfig{
		Name: "é", Category: "café", Handler: func(ctx context.Context, tx pgx.Tx, m *messagedb.Message) error {
			var data string
			err := tx.QueryRow(ctx, "INSERT INTO public.seen VALUES ($1) RETURNING data", string(m.Data)).Scan(&data)
			if err == nil {
				projected <- data
			}
			return err
		},
	})
	require.NoError(t, err)
	for _, reader := range []struct {
		run, stop func(context.Context) error
		got       <-chan string
	}{{consumer.Run, consumer.Stop, consumed}, {projector.Run, projector.Stop, projected}} {
		ended := make(chan error, 1)
		go func() { ended <- reader.run(context.WithoutCancel(ctx)) }()
		require.JSONEq(t, `["a\\b 'c'", "NULL", "é€"]`, take(t, reader.got))
		require.NoError(t, reader.stop(ctx))
		require.NoError(t, take(t, ended))
	}
	require.Equal(t, consumer.Stats().Position, projector.Stats().Position)
	positions, err := c.ConsumerPositions(ctx, "café")
	require.NoError(t, err)
	require.Len(t, positions, 1)
	require.Nil(t, positions[0].Rewound)
	require.Zero(t, positions[0].Lag.Messages)

	for range 2 { // the second time by the snapshot
		entity, err := messagedb.NewEntity(c, messagedb.EntityConfig[int]{
			Category: "café", SnapshotInterval: 1, CacheSize: -1, Fold: func(value *int, _ *messagedb.Message) error { *value++; return nil },
		})
		require.NoError(t, err)
		value, version, err := entity.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, 1, value)
		require.Zero(t, version)
	}
}

// heldUp returns a role with a limit of half a second for its transactions, in a database where each change of the schema takes a tenth of a second.
func heldUp(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	config := hostile.Make(t, server.admin, hostile.Case{Place: "role", Family: hostile.Family{Settings: []hostile.Setting{
		{Name: "transaction_timeout", Value: "500ms", Since: 17}, {Name: "lock_timeout", Value: "100ms"},
	}}})
	owner := hostile.Owner(t, server.admin, config)
	for _, sql := range []string{
		"RESET ROLE", "CREATE FUNCTION public.hold_up() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); END'",
		"CREATE EVENT TRIGGER hold_up ON ddl_command_start EXECUTE FUNCTION public.hold_up()",
	} {
		_, err := owner.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return config
}

func TestMigrationsOutliveTheTimeoutsOfTheirRole(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	start(t)
	config := heldUp(t)
	pool := poolOf(t, config)
	// Several at once: each but one waits for a lock for longer than the role may.
	ends := make(chan error, 3)
	for range cap(ends) {
		go func() { ends <- messagedb.Migrate(t.Context(), pool, "") }()
	}
	for range cap(ends) {
		require.NoError(t, take(t, ends))
	}
	for range cap(ends) {
		go func() { ends <- messagedb.MigrateProjections(t.Context(), pool, "") }()
	}
	for range cap(ends) {
		require.NoError(t, take(t, ends))
	}
	useEverything(t, clientOf(t, pool))
}

// The default schema and its name are one schema, so they have one lock.
func TestTheTableOfProjectionsIsMadeUnderOneLock(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	held, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = held.Rollback(t.Context()) }()
	_, err = held.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", messagedb.Hash64("messagedb projections public"))
	require.NoError(t, err)
	ended := make(chan error, 2)
	for _, schema := range []string{"", messagedb.DefaultProjectionSchema} {
		go func() { ended <- messagedb.MigrateProjections(t.Context(), s.pool, schema) }()
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var waiting int
		require.NoError(c, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&waiting))
		assert.True(c, waiting == 2 || len(ended) > 0)
	}, soon, 10*time.Millisecond)
	require.Empty(t, ended, "one did not wait")
	require.NoError(t, held.Commit(t.Context()))
	for range 2 {
		require.NoError(t, take(t, ended))
	}
}

func refusesEncoding(t *testing.T, err error, encoding string) {
	t.Helper()
	bad := new(messagedb.InvalidError)
	require.ErrorAs(t, err, &bad)
	require.Equal(t, messagedb.FieldClientEncoding, bad.Field)
	require.Equal(t, encoding, bad.Value)
	require.False(t, messagedb.IsTransient(err))
}

func TestTextIsNotSentInAnotherEncoding(t *testing.T) {
	t.Parallel()
	start(t)
	for encoding, text := range map[string]string{"LATIN1": "größe", "EUC_JP": "大きさ", "SQL_ASCII": "größe"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			config := hostile.MakeEncoded(t, server.admin, encoding)
			raw := poolOf(t, config)
			refusesEncoding(t, messagedb.Migrate(ctx, raw, ""), encoding)
			config.RuntimeParams["client_encoding"] = "UTF8"
			pool := poolOf(t, config)
			require.NoError(t, messagedb.Migrate(ctx, pool, ""))

			c, stream, m := clientOf(t, raw), messagedb.StreamName("a-1"), messagedb.ProposedMessage{Type: "T", Data: text, ID: messagedb.NewID()}
			_, err := c.WriteMessage(ctx, stream, m, messagedb.AnyVersion)
			refusesEncoding(t, err, encoding)
			_, err = c.ReadStream(ctx, stream, messagedb.StreamOptions{})
			refusesEncoding(t, err, encoding)
			tx, err := raw.Begin(ctx)
			require.NoError(t, err)
			defer func() { _ = tx.Rollback(ctx) }()
			_, err = c.WriteMessageTx(ctx, tx, stream, m, messagedb.AnyVersion)
			refusesEncoding(t, err, encoding)
			_, err = c.WriteMessageTx(ctx, tx, stream, m, messagedb.AnyVersion, messagedb.Idempotent())
			refusesEncoding(t, err, encoding)

			// What a projector writes beside its position is text, too.
			require.NoError(t, messagedb.MigrateProjections(ctx, pool, ""))
			refusesEncoding(t, messagedb.MigrateProjections(ctx, raw, ""), encoding)
			_, err = messagedb.Projections(ctx, raw, "")
			refusesEncoding(t, err, encoding)
			p, err := clientOf(t, pool).NewProjector(messagedb.ProjectorConfig{
				Name: "p", Category: "use:all", Pool: raw, Handler: func(context.Context, pgx.Tx, *messagedb.Message) error { return nil },
			})
			require.NoError(t, err)
			refusesEncoding(t, take(t, runProjector(t, p)), encoding)
			_, err = p.Lag(ctx)
			refusesEncoding(t, err, encoding)

			c = clientOf(t, pool)
			useEverything(t, c)
			stream = messagedb.StreamName(text + "-1")
			_, err = c.WriteMessage(ctx, stream, m, messagedb.AnyVersion)
			require.NoError(t, err)
			read, err := c.ReadStream(ctx, stream, messagedb.StreamOptions{})
			require.NoError(t, err)
			require.Len(t, read, 1)
			require.JSONEq(t, `"`+text+`"`, string(read[0].Data))
			if encoding == "SQL_ASCII" {
				return // which takes any bytes
			}
			_, err = c.WriteMessage(ctx, stream, messagedb.ProposedMessage{Type: "T", Data: "🎉"}, messagedb.AnyVersion)
			bad := new(messagedb.InvalidError)
			require.ErrorAs(t, err, &bad)
			require.Contains(t, bad.Rule, "the encoding of the database")
		})
	}
}

// Servers may use any language, so the meaning of an error must not depend on its text.
func TestErrorsAreKnownInAnyLanguage(t *testing.T) {
	t.Parallel()
	s := newStoreOf(t, "migrations")
	for _, pg := range []*pgconn.PgError{
		{Code: "54000", Message: "Indexzeilengröße 2800 überschreitet Maximum", ConstraintName: "messages_stream"},
		{Code: "22003", Message: "Wert überläuft Format numeric", Routine: "numeric_in"},
	} {
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, s.client.Explain(pg), &bad, pg.Message)
	}
	for _, pg := range []*pgconn.PgError{
		{Code: "54000", Message: "Zeichenkette ist zu lang, um als jsonb-Zeichenkette dargestellt zu werden"},
		{Code: "22003", Message: "bigint ist außerhalb des gültigen Bereichs", Routine: "int84pl"},
	} {
		require.NotErrorAs(t, s.client.Explain(pg), new(*messagedb.InvalidError), pg.Message)
	}
}

// listenerOf is the process of the connection that listens for a client of a pool.
func listenerOf(t *testing.T, database string) (pid int64) {
	t.Helper()
	admin, err := pgx.ConnectConfig(t.Context(), server.admin.Copy())
	require.NoError(t, err)
	defer func() { _ = admin.Close(context.Background()) }()
	_ = admin.QueryRow(t.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN %'", database).Scan(&pid)
	return pid
}

func TestTheListenerOutlivesTheIdleTimeoutsOfItsRole(t *testing.T) {
	t.Parallel()
	start(t)
	config := hostile.Make(t, server.admin, hostile.Case{Place: "role", Family: hostile.Family{Settings: []hostile.Setting{{Name: "idle_session_timeout", Value: "200ms"}}}})
	pool := poolOf(t, config)
	require.NoError(t, messagedb.Migrate(t.Context(), pool, ""))
	ignore := func(context.Context, *messagedb.Message) error { return nil }
	subscription, err := clientOf(t, pool).SubscribeToCategory(t.Context(), "a", ignore, messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{Notify: true})
	require.NoError(t, err)
	defer subscription.Stop()
	var first int64
	require.Eventually(t, func() bool { first = listenerOf(t, config.Database); return first != 0 }, time.Minute, 20*time.Millisecond)
	time.Sleep(time.Second)
	require.Equal(t, first, listenerOf(t, config.Database))
}

func TestASubscriptionBehindAPoolerSaysThatItHearsNothing(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	start(t)
	config := hostile.MakeEncoded(t, server.admin, "UTF8")
	require.NoError(t, messagedb.Migrate(t.Context(), poolOf(t, config), ""))
	log := make(logLines, 100)
	c, err := messagedb.NewClient(poolOf(t, hostile.Pooler(t, config)), &messagedb.Config{
		Logger: slog.New(slog.NewTextHandler(log, nil)), Notify: true, Polling: messagedb.ConstantPolling(20 * time.Millisecond),
	})
	require.NoError(t, err)
	got := make(chan *messagedb.Message, 1)
	handle := func(_ context.Context, m *messagedb.Message) error { got <- m; return nil }
	subscription, err := c.SubscribeToCategory(t.Context(), "a", handle, messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{Notify: true})
	require.NoError(t, err)
	defer subscription.Stop()
	select {
	case line := <-log:
		require.Contains(t, line, "a pooler in transaction mode")
	case <-time.After(time.Minute):
		require.Fail(t, "nothing was logged")
	}
	_, err = c.WriteMessage(t.Context(), "a-1", newMessage(1), messagedb.AnyVersion)
	require.NoError(t, err)
	<-got
}

// logLines are the lines that a client has logged.
type logLines chan string

func (l logLines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}
