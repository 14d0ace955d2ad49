package messagedb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

type opened struct {
	Owner string `json:"owner"`
}

func newMessage(n int) messagedb.ProposedMessage {
	return messagedb.ProposedMessage{ID: makeID(n), Type: "Opened", Data: opened{fmt.Sprint(n)}, Metadata: map[string]int{"n": n}}
}

func newMessages(from, to int) (all []messagedb.ProposedMessage) {
	for n := from; n <= to; n++ {
		all = append(all, newMessage(n))
	}
	return all
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		serverTime := func() (now time.Time) {
			require.NoError(t, s.pool.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&now))
			return now
		}
		began := serverTime()
		position, err := s.client.WriteMessage(t.Context(), "account-1", newMessage(1), messagedb.NoStreamVersion)
		require.NoError(t, err)
		require.Zero(t, position)
		position, err = s.client.Write(t.Context(), "account-1", newMessages(2, 4), 0)
		ended := serverTime()
		require.NoError(t, err)
		require.EqualValues(t, 3, position)
		read, err := s.client.ReadStream(t.Context(), "account-1", messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Len(t, read, 4)
		for i, m := range read {
			require.Equal(t, makeID(i+1), m.ID)
			require.Equal(t, messagedb.StreamName("account-1"), m.Stream)
			require.Equal(t, "Opened", m.Type)
			require.EqualValues(t, i, m.Position)
			require.EqualValues(t, i+1, m.GlobalPosition)
			require.JSONEq(t, fmt.Sprintf(`{"owner":"%d"}`, i+1), string(m.Data))
			require.JSONEq(t, fmt.Sprintf(`{"n":%d}`, i+1), string(m.Metadata))
			require.WithinRange(t, m.Time, began, ended)
			require.Equal(t, time.UTC, m.Time.Location())
			data, err := messagedb.Decode[opened](m)
			require.NoError(t, err)
			require.Equal(t, opened{fmt.Sprint(i + 1)}, data)
			metadata, err := messagedb.DecodeMetadata[map[string]int](m)
			require.NoError(t, err)
			require.Equal(t, map[string]int{"n": i + 1}, metadata)
		}
	})
}

func TestAVersionConflictTellsTheFacts(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		ctx := t.Context()
		// The stream's name imitates the server's error.
		const stream = "a (Stream: x, Stream Version: 7)\n-1"
		_, err := s.client.Write(ctx, stream, newMessages(1, 2), 0)
		conflict := new(messagedb.VersionConflictError)
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, []any{messagedb.StreamName(stream), int64(0), int64(-1), false}, []any{conflict.Stream, conflict.Expected, conflict.Actual, conflict.Stale})
		require.ErrorContains(t, err, "-1 (no stream)")
		_, err = s.client.Write(ctx, stream, newMessages(1, 2), messagedb.NoStreamVersion)
		require.NoError(t, err)
		_, err = s.client.Write(ctx, stream, newMessages(3, 4), messagedb.NoStreamVersion)
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, []int64{-1, 1}, []int64{conflict.Expected, conflict.Actual})
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg, "the server's own error is inside")
		require.False(t, messagedb.IsTransient(err))
		version, err := s.client.StreamVersion(ctx, stream)
		require.NoError(t, err)
		require.EqualValues(t, 1, version, "nothing of a call that fails is written")
		position, err := s.client.Write(ctx, stream, newMessages(3, 4), messagedb.AnyVersion)
		require.NoError(t, err)
		require.EqualValues(t, 3, position)
	})
}

// A writer at REPEATABLE READ that had to wait finds the position taken: the server says duplicate, and means conflict.
func TestAConflictOfASnapshotIsAConflict(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		ctx := t.Context()
		for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
			stream := messagedb.StreamName("a-" + string(level))
			tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
			require.NoError(t, err)
			_, err = s.client.InTx(tx).StreamVersion(ctx, stream) // takes the snapshot
			require.NoError(t, err)
			_, err = s.client.Write(ctx, stream, []messagedb.ProposedMessage{{Type: "T", Data: 1}, {Type: "T", Data: 1}}, messagedb.AnyVersion)
			require.NoError(t, err)
			_, err = s.client.WriteTx(ctx, tx, stream, []messagedb.ProposedMessage{{Type: "T", Data: 1}}, messagedb.NoStreamVersion)
			conflict := new(messagedb.VersionConflictError)
			require.ErrorAs(t, err, &conflict, level)
			require.True(t, conflict.Stale)
			require.Equal(t, stream, conflict.Stream)
			require.Equal(t, []int64{-1, 0}, []int64{conflict.Expected, conflict.Actual}, "at least 0, as far as the server tells")
			require.ErrorContains(t, err, "repeat the transaction")
			require.NoError(t, tx.Rollback(ctx))
		}
	})
}

func TestATransactionTakesItsMessagesWithIt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		ctx := t.Context()
		_, err := s.pool.Exec(ctx, "CREATE TABLE public.orders (id int)")
		require.NoError(t, err)
		for _, commit := range []bool{false, true} {
			tx, err := s.pool.Begin(ctx)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, "INSERT INTO orders VALUES (1)")
			require.NoError(t, err)
			_, err = s.client.WriteTx(ctx, tx, "order-1", newMessages(1, 2), messagedb.NoStreamVersion)
			require.NoError(t, err)
			_, err = s.client.WriteMessageTx(ctx, tx, "order-1", newMessage(3), 1)
			require.NoError(t, err)
			inside, err := s.client.InTx(tx).StreamVersion(ctx, "order-1")
			require.NoError(t, err)
			require.EqualValues(t, 2, inside)
			outside, err := s.client.StreamVersion(ctx, "order-1")
			require.NoError(t, err)
			require.Equal(t, messagedb.NoStreamVersion, outside)
			want := messagedb.NoStreamVersion
			if commit {
				require.NoError(t, tx.Commit(ctx))
				want = 2
			} else {
				require.NoError(t, tx.Rollback(ctx))
			}
			after, err := s.client.StreamVersion(ctx, "order-1")
			require.NoError(t, err)
			require.Equal(t, want, after)
			var rows int64
			require.NoError(t, s.pool.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&rows))
			require.Equal(t, want >= 0, rows == 1)
		}
	})
}

func TestADuplicateIDIsAnErrorWithTheID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		_, err := s.client.WriteMessage(t.Context(), "a-1", newMessage(1), messagedb.AnyVersion)
		require.NoError(t, err)
		for range 2 {
			_, err = s.client.WriteMessage(t.Context(), "a-2", newMessage(1), messagedb.AnyVersion)
			duplicate := new(messagedb.DuplicateIDError)
			require.ErrorAs(t, err, &duplicate)
			require.Equal(t, makeID(1), duplicate.ID)
			require.EqualValues(t, -1, duplicate.Position)
		}
		_, err = s.client.Write(t.Context(), "a-3", []messagedb.ProposedMessage{newMessage(5), newMessage(5)}, messagedb.AnyVersion)
		require.ErrorAs(t, err, new(*messagedb.DuplicateIDError), "two of one call")
	})
}

func TestAnIdempotentWriteIsRepeated(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		ctx := t.Context()
		write := func(stream messagedb.StreamName, ms []messagedb.ProposedMessage, expected int64) (int64, error) {
			return s.client.Write(ctx, stream, ms, expected, messagedb.Idempotent())
		}
		for range 3 { // expected was right the first time, and is wrong at the others
			position, err := write("a-1", newMessages(1, 3), messagedb.NoStreamVersion)
			require.NoError(t, err)
			require.EqualValues(t, 2, position)
			position, err = write("a-1", newMessages(2, 2), messagedb.AnyVersion)
			require.NoError(t, err)
			require.EqualValues(t, 1, position)
		}
		spelled := newMessage(1)
		spelled.ID = strings.ToUpper(strings.ReplaceAll(spelled.ID, "-", ""))
		spelled.Data = json.RawMessage(`  {"owner"  : "1"} `)
		_, err := write("a-1", []messagedb.ProposedMessage{spelled}, messagedb.AnyVersion)
		require.NoError(t, err, "the same content, however it is spelled")

		other := newMessage(1)
		other.Data = opened{"somebody else"}
		kind, metadata, none := newMessage(1), newMessage(1), newMessage(1)
		kind.Type, metadata.Metadata, none.Data = "Closed", nil, messagedb.NoData
		for name, c := range map[string]struct {
			stream    messagedb.StreamName
			messages  []messagedb.ProposedMessage
			different bool
			id        int
		}{
			"other data":         {"a-1", []messagedb.ProposedMessage{other}, true, 1},
			"other type":         {"a-1", []messagedb.ProposedMessage{kind}, true, 1},
			"other metadata":     {"a-1", []messagedb.ProposedMessage{metadata}, true, 1},
			"no data":            {"a-1", []messagedb.ProposedMessage{none}, true, 1},
			"other stream":       {"a-2", newMessages(1, 1), true, 1},
			"more than is there": {"a-1", newMessages(3, 4), false, 3},
			"another order":      {"a-1", []messagedb.ProposedMessage{newMessage(2), newMessage(1)}, false, 1},
			"with a gap":         {"a-1", []messagedb.ProposedMessage{newMessage(1), newMessage(3)}, false, 3},
		} {
			_, err := write(c.stream, c.messages, messagedb.AnyVersion)
			duplicate := new(messagedb.DuplicateIDError)
			require.ErrorAs(t, err, &duplicate, name)
			require.Equal(t, c.different, duplicate.Different, name)
			require.Equal(t, makeID(c.id), duplicate.ID, name)
			require.Equal(t, messagedb.StreamName("a-1"), duplicate.Stream, name)
			require.EqualValues(t, c.id-1, duplicate.Position, name)
			require.ErrorAs(t, err, new(*pgconn.PgError), name)
		}
		_, err = write("a-1", newMessages(9, 9), 7)
		require.ErrorAs(t, err, new(*messagedb.VersionConflictError), "a conflict with what is not there remains one")
		_, err = write("a-1", []messagedb.ProposedMessage{{Type: "T", Data: 1}}, -2)
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, err, &bad)
		require.Equal(t, messagedb.FieldID, bad.Field)
	})
}

func TestAnIdempotentWriteLeavesTheTransactionUsable(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		ctx := t.Context()
		_, err := s.client.Write(ctx, "a-1", newMessages(1, 2), messagedb.NoStreamVersion)
		require.NoError(t, err)
		tx, err := s.pool.Begin(ctx)
		require.NoError(t, err)
		position, err := s.client.WriteTx(ctx, tx, "a-1", newMessages(1, 2), messagedb.NoStreamVersion, messagedb.Idempotent())
		require.NoError(t, err)
		require.EqualValues(t, 1, position)
		_, err = s.client.WriteTx(ctx, tx, "a-2", newMessages(1, 1), messagedb.AnyVersion, messagedb.Idempotent())
		require.ErrorAs(t, err, new(*messagedb.DuplicateIDError))
		position, err = s.client.WriteTx(ctx, tx, "a-1", newMessages(3, 4), 1, messagedb.Idempotent())
		require.NoError(t, err)
		require.EqualValues(t, 3, position)
		require.NoError(t, tx.Commit(ctx))
	})
}

func TestWritersThatRepeatTheSameAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		var group sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			group.Go(func() {
				_, errs[i] = s.client.Write(t.Context(), "a-1", newMessages(1, 5), messagedb.NoStreamVersion, messagedb.Idempotent())
			})
		}
		group.Wait()
		require.NoError(t, errors.Join(errs...))
		version, err := s.client.StreamVersion(t.Context(), "a-1")
		require.NoError(t, err)
		require.EqualValues(t, 4, version)
	})
}

// Of several writers that expect the same version all but one fail, and none leaves a gap.
func TestOfManyWritersThatExpectOneVersionOneSucceeds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		for round := range int64(5) {
			var group sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				group.Go(func() {
					_, errs[i] = s.client.WriteMessage(t.Context(), "a-1", messagedb.ProposedMessage{Type: "T", Data: i}, round-1)
				})
			}
			group.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
					continue
				}
				conflict := new(messagedb.VersionConflictError)
				require.ErrorAs(t, err, &conflict)
				require.Equal(t, round, conflict.Actual)
			}
			require.Equal(t, 1, won)
		}
	})
}

func TestNullAndNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		ctx := t.Context()
		_, err := s.client.Write(ctx, "a-1", []messagedb.ProposedMessage{
			{Type: "T", Data: messagedb.NoData},
			{Type: "T", Data: json.RawMessage("null"), Metadata: json.RawMessage("null")},
			{Type: "T", Data: json.RawMessage(nil), Metadata: json.RawMessage(nil)},
		}, messagedb.AnyVersion)
		require.NoError(t, err)
		_, err = s.client.WriteMessage(ctx, "a-1", messagedb.ProposedMessage{Type: "T", Data: messagedb.NoData}, 2)
		require.NoError(t, err)
		read, err := s.client.ReadStream(ctx, "a-1", messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Len(t, read, 4)
		for i, m := range read {
			if i == 1 {
				require.Equal(t, "null null", string(m.Data)+" "+string(m.Metadata))
			} else {
				require.Nil(t, m.Data)
				require.Nil(t, m.Metadata)
			}
			data, err := messagedb.Decode[opened](m)
			require.NoError(t, err)
			require.Zero(t, data)
			metadata, err := messagedb.DecodeMetadata[map[string]string](m)
			require.NoError(t, err)
			require.Nil(t, metadata)
		}
	})
}

func TestAPayloadThatDoesNotFitSaysWhichAndWhere(t *testing.T) {
	t.Parallel()
	m := &messagedb.Message{ID: makeID(1), Stream: "a-1", Type: "Opened", Position: 7, Data: json.RawMessage(`{"owner": 1}`), Metadata: json.RawMessage(`[`)}
	_, err := messagedb.Decode[opened](m)
	decode := new(messagedb.DecodeError)
	require.ErrorAs(t, err, &decode)
	require.Same(t, m, decode.Message)
	require.Equal(t, messagedb.FieldData, decode.Field)
	require.ErrorAs(t, err, new(*json.UnmarshalTypeError))
	require.ErrorContains(t, err, `(Opened, position 7 of stream "a-1")`)
	_, err = messagedb.DecodeMetadata[opened](m)
	require.ErrorAs(t, err, &decode)
	require.Equal(t, messagedb.FieldMetadata, decode.Field)
}

func TestTheEndOfAContextEndsACall(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it holds the lock until then
	key, err := s.client.InTx(tx).AcquireLock(t.Context(), "a-1")
	require.NoError(t, err)
	require.Equal(t, messagedb.Hash64("a"), key)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.client.WriteMessage(ctx, "a-2", newMessage(1), messagedb.AnyVersion)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = s.client.WriteMessage(t.Context(), "b-2", newMessage(1), messagedb.AnyVersion)
	require.NoError(t, err, "another category is not locked")
}
