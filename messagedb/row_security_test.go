package messagedb_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/messagedb"
)

// hideRows gives a table a policy, meant for other programs, that hides rows from its owner.
func hideRows(t *testing.T, pool *pgxpool.Pool, table string) {
	t.Helper()
	for _, sql := range []string{
		"ALTER TABLE " + table + " ENABLE ROW LEVEL SECURITY", "ALTER TABLE " + table + " FORCE ROW LEVEL SECURITY",
		"CREATE POLICY half ON " + table + " USING (false) WITH CHECK (true)",
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
}

// allCalls are the calls of a client that read or write messages.
func allCalls(t *testing.T, c *messagedb.Client) map[string]func() error {
	ctx := t.Context()
	return map[string]func() error{
		"WriteMessage": func() error { _, err := c.WriteMessage(ctx, "a-1", newMessage(1), messagedb.AnyVersion); return err },
		"Write":        func() error { _, err := c.Write(ctx, "a-1", newMessages(1, 2), messagedb.AnyVersion); return err },
		"Write, once": func() error {
			_, err := c.Write(ctx, "a-1", newMessages(1, 1), messagedb.AnyVersion, messagedb.Idempotent())
			return err
		},
		"ReadStream":           func() error { _, err := c.ReadStream(ctx, "a-1", messagedb.StreamOptions{}); return err },
		"ReadStreams":          func() error { _, err := c.ReadStreams(ctx, []messagedb.StreamPlace{{Stream: "a-1"}}, 0); return err },
		"ReadCategory":         func() error { _, err := c.ReadCategory(ctx, "a", messagedb.CategoryOptions{}); return err },
		"LastMessage":          func() error { _, err := c.LastMessage(ctx, "a-1", ""); return err },
		"StreamVersion":        func() error { _, err := c.StreamVersion(ctx, "a-1"); return err },
		"Streams":              func() error { _, err := c.Streams(ctx, "a", 0, 10); return err },
		"Categories":           func() error { _, err := c.Categories(ctx); return err },
		"LastCategoryMessages": func() error { _, err := c.LastCategoryMessages(ctx, "a", 1, ""); return err },
		"ConsumerPositions":    func() error { _, err := c.ConsumerPositions(ctx, "a"); return err },
		"CategoryLag":          func() error { _, err := c.CategoryLag(ctx, "a", 0, nil); return err },
		"CheckPosition":        func() error { return c.CheckPosition(ctx, "a", 1, "") },
		"Summary":              func() error { _, err := c.Summary(ctx, messagedb.StreamSummary); return err },
	}
}

func requireHidden(t *testing.T, err error, table, role string) {
	t.Helper()
	hidden := new(messagedb.RowSecurityError)
	require.ErrorAs(t, err, &hidden)
	require.Equal(t, table, hidden.Table)
	require.Equal(t, role, hidden.Role)
	require.False(t, messagedb.IsTransient(err))
}

// A policy would hide messages from a reader, which would skip them, and from a writer, which would take a version for free. The client refuses it by name, on the
// pool and in a caller's transaction, also if the policy is newer than the connection.
func TestPoliciesThatHideMessagesAreRefused(t *testing.T) {
	t.Parallel()
	start(t)
	config := hostile.MakeEncoded(t, server.admin, "UTF8")
	pool := poolOf(t, config)
	require.NoError(t, messagedb.Migrate(t.Context(), pool, ""))
	require.NoError(t, messagedb.MigrateProjections(t.Context(), pool, ""))
	c := clientOf(t, pool)
	useEverything(t, c)
	const table = `"message_store".messages`
	ended := make(chan error, 1)
	handle := func(context.Context, *messagedb.Message) error { return nil }
	subscription, err := c.SubscribeToCategory(t.Context(), "a", handle, messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{
		Dropped: func(err error) { ended <- err },
	})
	require.NoError(t, err)
	defer subscription.Stop()

	hideRows(t, pool, "message_store.messages")
	requireHidden(t, take(t, ended), table, config.User)
	for name, call := range allCalls(t, c) {
		t.Log(name)
		requireHidden(t, call(), table, config.User)
	}
	for name := range allCalls(t, c) {
		t.Log(name, "in a transaction")
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		requireHidden(t, allCalls(t, c.InTx(tx))[name](), table, config.User)
		require.NoError(t, tx.Rollback(t.Context()))
	}
	consumer, err := c.NewConsumer(messagedb.ConsumerConfig{Category: "a", Handler: handle})
	require.NoError(t, err)
	requireHidden(t, take(t, runConsumer(t, consumer)), table, config.User)
	_, err = consumer.Lag(t.Context())
	requireHidden(t, err, table, config.User)

	// Another role, to which the policy does not apply, may go on.
	owner := hostile.Owner(t, server.admin, config)
	_, err = owner.Exec(t.Context(), "RESET ROLE")
	require.NoError(t, err)
	_, err = owner.Exec(t.Context(), "ALTER ROLE "+config.User+" BYPASSRLS")
	require.NoError(t, err)
	for name, call := range allCalls(t, c) {
		require.NotErrorAs(t, call(), new(*messagedb.RowSecurityError), name)
	}
}

// A role that is taken within a transaction is the one that counts.
func TestAPolicyForTheRoleOfATransactionIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		hideRows(t, s.pool, "message_store.messages")
		useEverything(t, s.client) // as a superuser
		tx, err := s.pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(t.Context()) }()
		_, err = tx.Exec(t.Context(), "SET LOCAL ROLE message_store")
		require.NoError(t, err)
		_, err = s.client.InTx(tx).ReadStream(t.Context(), "a-1", messagedb.StreamOptions{})
		requireHidden(t, err, `"message_store".messages`, "message_store")
	})
}

func TestPoliciesThatHideProjectionsAreRefused(t *testing.T) {
	t.Parallel()
	start(t)
	config := hostile.MakeEncoded(t, server.admin, "UTF8")
	pool := poolOf(t, config)
	require.NoError(t, messagedb.Migrate(t.Context(), pool, ""))
	require.NoError(t, messagedb.MigrateProjections(t.Context(), pool, ""))
	c := clientOf(t, pool)
	p, err := c.NewProjector(messagedb.ProjectorConfig{
		Category: "a", Name: "p", Handler: func(context.Context, pgx.Tx, *messagedb.Message) error { return nil },
	})
	require.NoError(t, err)
	hideRows(t, pool, "messagedb_projection")
	const table = `"public"."messagedb_projection"`
	requireHidden(t, take(t, runProjector(t, p)), table, config.User)
	_, err = messagedb.Projections(t.Context(), pool, "")
	requireHidden(t, err, table, config.User)
	_, err = p.Lag(t.Context())
	requireHidden(t, err, table, config.User)
}
