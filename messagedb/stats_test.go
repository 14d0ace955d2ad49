package messagedb_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

func TestClientsCountTheirWrites(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	require.Zero(t, s.client.Stats())
	write := func(n int, stream messagedb.StreamName, expected int64, opts ...messagedb.WriteOption) error {
		_, err := s.client.Write(t.Context(), stream, newMessages(n, n+1), expected, opts...)
		return err
	}
	require.NoError(t, write(1, "a-1", messagedb.NoStreamVersion))
	require.ErrorAs(t, write(3, "a-1", messagedb.NoStreamVersion), new(*messagedb.VersionConflictError))
	require.ErrorAs(t, write(1, "a-2", messagedb.AnyVersion), new(*messagedb.DuplicateIDError))
	require.NoError(t, write(1, "a-1", messagedb.NoStreamVersion, messagedb.Idempotent()))
	require.ErrorAs(t, write(3, "a-1", -3), new(*messagedb.InvalidError), "which is neither")
	require.Equal(t, messagedb.ClientStats{Written: 4, Conflicts: 1, Duplicates: 1}, s.client.Stats())

	err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		_, err := s.client.WriteMessageTx(t.Context(), tx, "a-1", newMessage(9), 7)
		return err
	})
	require.ErrorAs(t, err, new(*messagedb.VersionConflictError))
	require.EqualValues(t, 2, s.client.Stats().Conflicts, "a client of a transaction counts for the one that made it")

	// Positions that a consumer saves do not count as writes.
	c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", PositionInterval: 1, Handler: (&journal{}).handle})
	ended := runConsumer(t, c)
	waitHandled(t, c, 2)
	require.NoError(t, c.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	require.Positive(t, c.Stats().Saved)
	require.EqualValues(t, 4, s.client.Stats().Written)
}
