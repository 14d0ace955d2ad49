package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/messagedb"
)

func TestWhatIsTransient(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"08006": true, "40001": true, "40P01": true, "53300": true, "57P01": true, "57P03": true, "25006": true, "55P03": true,
		"P0001": false, "23505": false, "42883": false, "42501": false, "22P02": false,
	} {
		require.Equal(t, want, messagedb.IsTransient(fmt.Errorf("reading: %w", &pgconn.PgError{Code: code})), code)
	}
	for _, err := range []error{io.ErrUnexpectedEOF, context.DeadlineExceeded} {
		require.True(t, messagedb.IsTransient(err), "%v", err)
	}
	for _, err := range []error{
		nil, context.Canceled, puddle.ErrClosedPool, messagedb.ErrNoMessage, &messagedb.InvalidError{}, &messagedb.DecodeError{}, &messagedb.PositionConflictError{},
		// Errors of a handler's own database are not converted.
		&messagedb.HandlerError{Message: &messagedb.Message{}, Err: &pgconn.PgError{Code: "08006"}},
	} {
		require.False(t, messagedb.IsTransient(err), "%v", err)
	}
}

func TestADeadlockOfCategoriesIsTransient(t *testing.T) {
	hostile.NeedsDirect(t, "its connections have a deadlock_timeout of their own")
	t.Parallel()
	s := newStore(t, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["deadlock_timeout"] = "10ms" })
	var txs []pgx.Tx
	for i := range 2 {
		tx, err := s.pool.Begin(t.Context())
		require.NoError(t, err)
		defer tx.Rollback(context.Background()) //nolint:errcheck // it has failed or is of no use
		_, err = s.client.InTx(tx).AcquireLock(t.Context(), messagedb.StreamName(fmt.Sprintf("c%d-1", i)))
		require.NoError(t, err)
		txs = append(txs, tx)
	}
	errs := make(chan error, 2)
	for i, tx := range txs {
		go func() {
			_, err := s.client.WriteTx(t.Context(), tx, messagedb.StreamName(fmt.Sprintf("c%d-1", 1-i)), newMessages(i+1, i+1), messagedb.AnyVersion)
			if err != nil {
				_ = tx.Rollback(context.Background()) // so that the other goes on
			}
			errs <- err
		}()
	}
	err := errors.Join(take(t, errs), take(t, errs))
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "40P01", pg.Code)
	require.True(t, messagedb.IsTransient(err))
}

// The server's errors, for rules that only it can check, have the same types as the client's.
func TestWhatOnlyTheServerKnowsIsTyped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		for _, data := range []string{`"\ud800"`, "1e999999"} {
			_, err := s.client.WriteMessage(t.Context(), "a-1", messagedb.ProposedMessage{Type: "T", Data: rawJSON(data)}, messagedb.AnyVersion)
			bad := new(messagedb.InvalidError)
			require.ErrorAs(t, err, &bad, data)
			require.Equal(t, messagedb.FieldData, bad.Field)
		}
		_, err := s.client.ReadStream(canceledContext(), "a-1", messagedb.StreamOptions{})
		require.ErrorIs(t, err, context.Canceled)
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		for _, err := range s.client.CategoryMessages(ctx, "a", messagedb.CategoryOptions{}) {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
}

func TestErrorsSayWhatWasBeingDone(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	_, err := s.client.ReadCategory(canceledContext(), "a", messagedb.CategoryOptions{From: 5})
	require.ErrorContains(t, err, `messagedb: reading category "a" from global position 5: `)
	_, err = s.client.ReadStream(canceledContext(), "a-1", messagedb.StreamOptions{})
	require.ErrorContains(t, err, `messagedb: reading stream "a-1" from position 0: `)
	_, err = s.client.WriteMessage(canceledContext(), "a-1", newMessages(1, 1)[0], messagedb.AnyVersion)
	require.ErrorContains(t, err, `messagedb: writing to stream "a-1": `)
	_, err = s.client.Version(canceledContext())
	require.ErrorContains(t, err, "messagedb: asking for the version of the store: ")
	_, _, err = s.client.ServerNames().CardinalID(canceledContext(), "a-1")
	require.ErrorContains(t, err, `messagedb: asking for cardinal_id of "a-1": `)
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func TestAnErrorWithoutACodeIsNotTransient(t *testing.T) {
	t.Parallel()
	require.False(t, messagedb.IsTransient(&pgconn.PgError{Message: "from a pooler"}))
}
