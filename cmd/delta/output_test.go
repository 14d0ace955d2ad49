package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestTimesAndNumbersAsAPersonReadsThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 59*time.Second + 900*time.Millisecond: "59s", time.Minute: "1m", 90 * time.Second: "1m30s", 25 * time.Hour: "1d1h",
		48 * time.Hour: "2d", 61 * time.Minute: "1h1m", -time.Hour: "-1h",
	} {
		require.Equal(t, want, short(d))
	}
	now := time.Now()
	at := func(d time.Duration) *time.Time { v := now.Add(d); return &v }
	require.Equal(t, "-", when(nil, now))
	require.Equal(t, "now", when(at(-time.Millisecond), now))
	require.Equal(t, "2h ago", when(at(-2*time.Hour), now))
	require.Equal(t, "in 2h", when(at(2*time.Hour), now))
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		require.Equal(t, want, number(n))
	}
	require.Equal(t, "1 resource", counted(1, "resource"))
	require.Equal(t, "0 resources", counted(0, "resource"))
	require.Equal(t, []string{"aa bb", "cccccccc", "d"}, wrap("aa bb cccccccc d", 6))
	require.Equal(t, "a b c", plain("a\n\tb\x1bc"))
}

func TestEveryErrorHasItsExitCode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("unknown flag"), exitUsage},
		{fail(errors.New("broken")), exitFailure},
		{fail(fmt.Errorf("x: %w", delta.ErrNotFound)), exitNotFound},
		{fail(fmt.Errorf("x: %w", &delta.StateError{})), exitState},
		{fail(fmt.Errorf("x: %w", &delta.InputError{})), exitUsage},
		{fail(fmt.Errorf("x: %w", delta.ErrNoSchema)), exitUnreachable},
		{fail(&unreachableError{"it", errors.New("refused\nrefused")}), exitUnreachable},
		{fail(errInterrupted), exitInterrupted},
		{&silence{7}, 7},
	} {
		require.Equal(t, test.want, codeOf(test.err), "%v", test.err)
	}
	require.Equal(t, "it cannot be reached: refused", (&unreachableError{"it", errors.New("refused\nrefused")}).Error())
	require.Equal(t, "a [31mb\nc", message(errors.New("delta: a\x1b[31mb\nc")))
}

func TestAQuestionThatIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	reader := blocked{make(chan struct{})}
	defer close(reader.until)
	err := streams{in: reader, err: new(bytes.Buffer), asks: true}.confirm(ctx, false, "Sure?")
	require.Equal(t, exitInterrupted, codeOf(err))
	require.NoError(t, streams{}.confirm(t.Context(), true, "Sure?"))
	require.NoError(t, streams{in: strings.NewReader("YES\n"), err: new(bytes.Buffer), asks: true}.confirm(t.Context(), false, "Sure?"))
}

// blocked is a terminal at which nobody sits.
type blocked struct{ until chan struct{} }

func (b blocked) Read([]byte) (int, error) {
	<-b.until
	return 0, errors.New("closed")
}
