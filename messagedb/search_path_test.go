package messagedb_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

func TestTheStoreIsFoundWhateverTheSearchPathIs(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, path := range []string{"", `""`, "pg_catalog", `"$user", public`, "message_store", `public, "no such ""schema"`, "pg_temp, public"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			for kind := range kinds {
				s := newStoreOf(t, kind, func(c *pgxpool.Config) {
					c.MaxConns = 2
					c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
						// A temporary table must not be taken for the store's.
						_, err := conn.Exec(ctx, "CREATE TEMP TABLE messages (stream_name text)")
						if err == nil {
							_, err = conn.Exec(ctx, "SELECT set_config('search_path', $1, false)", path)
						}
						return err
					}
				})
				before := searchPath(t, s.pool)
				useEverything(t, s.client)
				require.Equal(t, before, searchPath(t, s.pool))

				tx, err := s.pool.Begin(t.Context())
				require.NoError(t, err)
				_, err = tx.Exec(t.Context(), "SET LOCAL search_path TO public, pg_catalog")
				require.NoError(t, err)
				useEverything(t, s.client.InTx(tx))
				require.Equal(t, "public, pg_catalog", searchPath(t, tx))
				require.NoError(t, tx.Commit(t.Context()))
				require.Equal(t, before, searchPath(t, s.pool))
			}
		})
	}
}

func searchPath(t *testing.T, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
},
) (path string) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), "SELECT pg_catalog.current_setting('search_path')").Scan(&path))
	return path
}

// useEverything makes each call once, on a new stream.
func useEverything(t *testing.T, c *messagedb.Client) {
	t.Helper()
	ctx := t.Context()
	stream := messagedb.StreamName("use:all-" + messagedb.NewID())
	_, err := c.WriteMessage(ctx, stream, messagedb.ProposedMessage{Type: "T", Data: 1}, messagedb.NoStreamVersion)
	require.NoError(t, err)
	position, err := c.Write(ctx, stream, []messagedb.ProposedMessage{{Type: "T", Data: 1}, {Type: "T", Data: 1}}, 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, position)
	version, err := c.StreamVersion(ctx, stream)
	require.NoError(t, err)
	require.EqualValues(t, 2, version)
	read, err := c.ReadStream(ctx, stream, messagedb.StreamOptions{})
	require.NoError(t, err)
	require.Len(t, read, 3)
	none, err := c.ReadStream(ctx, stream, messagedb.StreamOptions{From: 3})
	require.NoError(t, err)
	require.Empty(t, none)
	read, err = c.ReadCategory(ctx, stream.Category(), messagedb.CategoryOptions{Group: &messagedb.Group{Size: 1}})
	require.NoError(t, err)
	require.NotEmpty(t, read)
	last, err := c.LastMessage(ctx, stream, "T")
	require.NoError(t, err)
	require.EqualValues(t, 2, last.Position)
	_, err = c.LastMessage(ctx, stream, "U")
	require.ErrorIs(t, err, messagedb.ErrNoMessage)
	v, err := c.Version(ctx)
	require.NoError(t, err)
	require.Equal(t, "1.3.0", v)
	cardinal, ok, err := c.ServerNames().CardinalID(ctx, "a-b+c")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "b", cardinal)
	summary, err := c.Summary(ctx, messagedb.StreamSummary)
	require.NoError(t, err)
	require.NotEmpty(t, summary)
}
