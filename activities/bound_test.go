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
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestATextThatFitsIsKeptAsItIs(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "plain", "grüße, 世界 🙂", strings.Repeat("x", 64)} {
		require.Equal(t, s, bound(s, 64))
	}
}

func TestALongTextIsCutAtACharacterAndSaysSo(t *testing.T) {
	t.Parallel()
	for _, char := range []string{"x", "ü", "世", "🙂"} {
		for before := range 5 {
			s := strings.Repeat("y", before) + strings.Repeat(char, 100)
			cut := bound(s, 64)
			require.True(t, utf8.ValidString(cut))
			require.LessOrEqual(t, len(cut), 64)
			require.Greater(t, len(cut), 64-utf8.UTFMax, "as much as fits is kept")
			kept, marked := strings.CutSuffix(cut, " … (cut)")
			require.True(t, marked)
			require.True(t, strings.HasPrefix(s, kept), "what is kept is the beginning")
		}
	}
}

func TestWhatPostgresCannotStoreIsReplaced(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a\uFFFDb", bound("a\x00b", 64))
	require.Equal(t, "a\uFFFDb", bound("a\xff\xfeb", 64))
	// Replacing makes it longer: the limit holds afterwards.
	for _, char := range []string{"\x00", "\xff!"} {
		cut := bound(strings.Repeat(char, 60), 64)
		require.True(t, utf8.ValidString(cut))
		require.LessOrEqual(t, len(cut), 64)
		require.NotContains(t, cut, "\x00")
	}
}

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
	require.ErrorIs(t, retry(t.Context(), writeTries, func(context.Context) error { calls++; return lasting }), lasting)
	require.Equal(t, 1, calls)

	calls = 0
	require.NoError(t, retry(t.Context(), writeTries, func(ctx context.Context) error {
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
