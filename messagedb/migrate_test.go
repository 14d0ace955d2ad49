package messagedb_test

import (
	"io/fs"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/messagedb"
)

func TestMigrateTwiceAndAtOnceDoesItOnce(t *testing.T) {
	hostile.NeedsDirect(t, "migrations refuse it")
	t.Parallel()
	s := newStoreOf(t, "migrations")
	var group sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		group.Go(func() { errs[i] = messagedb.Migrate(t.Context(), s.pool, "another") })
	}
	group.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	another := s.clientWith(t, messagedb.Config{Schema: "another"})
	useEverything(t, another)
	require.NoError(t, messagedb.Migrate(t.Context(), s.pool, "another"))
	summary, err := another.Summary(t.Context(), messagedb.TypeSummary)
	require.NoError(t, err)
	require.Equal(t, []messagedb.SummaryRow{{Type: "T", Messages: 3, Percent: 100}}, summary, "what was there is there")
	var versions int
	require.NoError(t, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM another.messagedb_goose_version WHERE version_id > 0").Scan(&versions))
	files, err := fs.Glob(messagedb.Migrations, "*.sql")
	require.NoError(t, err)
	require.Equal(t, len(files), versions)
}

func TestMigrateLeavesAnotherStoreAlone(t *testing.T) {
	hostile.NeedsDirect(t, "migrations refuse it")
	t.Parallel()
	s := newStore(t)
	_, err := s.client.WriteMessage(t.Context(), "a-1", newMessage(1), messagedb.AnyVersion)
	require.NoError(t, err)
	err = messagedb.Migrate(t.Context(), s.pool, "")
	installed := new(messagedb.InstalledError)
	require.ErrorAs(t, err, &installed)
	require.Equal(t, "message_store", installed.Schema)
	useEverything(t, s.client)
}

// The set works with goose itself, up and down and up.
func TestTheMigrationsAreGoosesToApply(t *testing.T) {
	hostile.NeedsDirect(t, "goose holds a lock of a session")
	t.Parallel()
	s := newStore(t)
	config := s.config.ConnConfig.Copy()
	config.RuntimeParams["search_path"] = "mine"
	_, err := s.pool.Exec(t.Context(), "CREATE SCHEMA mine")
	require.NoError(t, err)
	db := stdlib.OpenDB(*config)
	defer db.Close() //nolint:errcheck // of a test
	provider, err := goose.NewProvider(goose.DialectPostgres, db, messagedb.Migrations)
	require.NoError(t, err)
	client := s.clientWith(t, messagedb.Config{Schema: "mine"})
	for range 2 {
		_, err = provider.Up(t.Context())
		require.NoError(t, err)
		useEverything(t, client)
		_, err = provider.DownTo(t.Context(), 0)
		require.NoError(t, err)
		var left int
		require.NoError(t, s.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'mine'::regnamespace AND relname NOT LIKE 'goose%')
			+ (SELECT count(*) FROM pg_proc WHERE pronamespace = 'mine'::regnamespace) + (SELECT count(*) FROM pg_type WHERE typnamespace = 'mine'::regnamespace AND typname NOT LIKE '%goose%')`).Scan(&left))
		require.Zero(t, left)
	}
}
