package messagedb_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

// roundTrips is a store that counts reads.
type roundTrips struct {
	messagedb.Store
	one, many atomic.Int64
	fail      atomic.Bool
}

func (s *roundTrips) ReadStream(ctx context.Context, stream messagedb.StreamName, o messagedb.StreamOptions) ([]*messagedb.Message, error) {
	s.one.Add(1)
	return s.Store.ReadStream(ctx, stream, o)
}

func (s *roundTrips) ReadStreams(ctx context.Context, places []messagedb.StreamPlace, batchSize int) ([]*messagedb.Message, error) {
	if s.fail.Load() {
		return nil, errDown
	}
	s.many.Add(1)
	return s.Store.ReadStreams(ctx, places, batchSize)
}

// GetMany returns the same values as Get does for each id, in one round trip for some hundred ids; only long streams need more.
func TestManyEntitiesAreReadAtOnce(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store messagedb.Store) {
		const streams = 450
		var ids []string
		for i := range streams {
			ids = append(ids, fmt.Sprint(i))
			if amounts := make([]int, i%4); len(amounts) > 0 {
				amounts[0] = i
				writeDeposits(t, store, messagedb.StreamName(fmt.Sprint("account-", i)), messagedb.AnyVersion, amounts...)
			}
		}
		const long = 130
		for range long {
			writeDeposits(t, store, "account-7", messagedb.AnyVersion, 1)
		}
		s := &roundTrips{Store: store}
		many, single := newBalances(t, s, messagedb.EntityConfig[balance]{BatchSize: 60}), newBalances(t, store, messagedb.EntityConfig[balance]{CacheSize: -1})
		_, err := many.GetMany(t.Context(), []string{"1", "1"})
		require.ErrorAs(t, err, new(*messagedb.InvalidError), "named twice")
		s.many.Store(0)
		same := func() {
			t.Helper()
			results, err := many.GetMany(t.Context(), ids)
			require.NoError(t, err)
			require.Len(t, results, streams)
			for i, id := range ids {
				value, version, err := single.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, messagedb.EntityResult[balance]{Value: value, Version: version}, results[i], id)
			}
		}
		same()
		require.EqualValues(t, 3, s.many.Load())
		require.EqualValues(t, 2, s.one.Load(), "133 messages, in the cache or not: 50, 60, and the rest")
		writeDeposits(t, store, "account-7", messagedb.AnyVersion, 1000)
		writeDeposits(t, store, "account-8", messagedb.AnyVersion, 1000)
		same()
		require.EqualValues(t, 2, s.one.Load(), "only what is new is read")

		s.fail.Store(true)
		_, err = many.GetMany(t.Context(), ids)
		require.ErrorIs(t, err, errDown)
	})
}

// An error of one stream is reported for that stream only.
func TestOneOfManyEntitiesThatCannotBeFolded(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, s messagedb.Store) {
		writeDeposits(t, s, "account-1", messagedb.AnyVersion, 1)
		_, err := s.WriteMessage(t.Context(), "account-2", messagedb.ProposedMessage{Type: "Deposited", Data: "much"}, messagedb.AnyVersion)
		require.NoError(t, err)
		results, err := newBalances(t, s, messagedb.EntityConfig[balance]{}).GetMany(t.Context(), []string{"1", "2", "", "3"})
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		require.Equal(t, 1, results[0].Value.Sum)
		require.ErrorAs(t, results[1].Err, new(*messagedb.HandlerError))
		require.ErrorAs(t, results[2].Err, new(*messagedb.InvalidError))
		require.NoError(t, results[3].Err)
		require.Equal(t, messagedb.NoStreamVersion, results[3].Version)
	})
}

// A stream that was replaced since the last read is folded again from its beginning, the others are not.
func TestOneOfManyEntitiesThatWasRestored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		text, logger := newLog()
		warm := newBalances(t, s.client, messagedb.EntityConfig[balance]{SnapshotInterval: 2, Logger: logger})
		sums := func() (sums []int) {
			results, err := warm.GetMany(t.Context(), []string{"1", "2", "3"})
			require.NoError(t, err)
			for _, r := range results {
				require.NoError(t, r.Err)
				sums = append(sums, r.Value.Sum)
			}
			return sums
		}
		for i := range 3 {
			writeDeposits(t, s.client, messagedb.StreamName(fmt.Sprint("account-", i+1)), messagedb.AnyVersion, 1, 2, 3, 4)
		}
		require.Equal(t, []int{10, 10, 10}, sums())
		_, err := s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'account-2' AND position >= 3 OR stream_name = 'account-3'")
		require.NoError(t, err)
		writeDeposits(t, s.client, "account-2", messagedb.AnyVersion, 100)
		require.Equal(t, []int{10, 106, 0}, sums())
		require.Contains(t, text.String(), "was the store restored?")
	})
}
