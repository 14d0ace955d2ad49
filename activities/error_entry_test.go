package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestAnErrorEntryIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x00🙂", 1<<20)
	began := time.Now().Round(0)
	encoded, err := encodeError(time.Now(), 3, Outcome{Verdict: VerdictFailed, Error: long, Trace: long})
	require.NoError(t, err)
	var entry deltatype.AttemptError
	require.NoError(t, json.Unmarshal(encoded, &entry))
	require.Equal(t, 3, entry.Attempt)
	require.WithinRange(t, entry.At, began, time.Now())
	require.Equal(t, time.UTC, entry.At.Location())
	require.LessOrEqual(t, len(entry.Error), maxErrorBytes)
	require.LessOrEqual(t, len(entry.Trace), maxTraceBytes)
	require.NotContains(t, string(encoded), `\u0000`)
}

func TestAWriteIsRepeatedForAPassingReasonOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     error
		passing bool
	}{
		{io.ErrUnexpectedEOF, true},
		{errors.New("connection refused"), true},
		{context.DeadlineExceeded, true},
		{&pgconn.PgError{Code: "08006"}, true}, // connection failure
		{&pgconn.PgError{Code: "40001"}, true}, // serialization failure
		{&pgconn.PgError{Code: "53300"}, true}, // too many connections
		{&pgconn.PgError{Code: "57P01"}, true}, // admin shutdown
		{&pgconn.PgError{Code: "25006"}, true}, // read-only: no longer the primary
		{&pgconn.PgError{Code: "55P03"}, true}, // lock not available, within the role's lock_timeout
		{pgx.ErrNoRows, false},
		{fmt.Errorf("claiming: %w", pgx.ErrNoRows), false},
		{&pgconn.PgError{Code: "23514"}, false}, // check violation
		{&pgconn.PgError{Code: "42P01"}, false}, // undefined table
		{fmt.Errorf("writing: %w", &pgconn.PgError{Code: "42703"}), false},
		{&pgconn.PgError{}, false},
	} {
		require.Equal(t, c.passing, db.IsTransient(c.err), "%v", c.err)
	}

	calls := 0
	lasting := &pgconn.PgError{Code: "42P01"}
	require.ErrorIs(t, retryTransient(t.Context(), writeTries, func(context.Context) error { calls++; return lasting }), lasting)
	require.Equal(t, 1, calls)

	calls = 0
	require.NoError(t, retryTransient(t.Context(), writeTries, func(ctx context.Context) error {
		calls++
		_, bounded := ctx.Deadline()
		require.True(t, bounded, "each try has a time of its own")
		if calls == 1 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}))
	require.Equal(t, 2, calls)
}
