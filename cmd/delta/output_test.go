package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestTextIsBrokenIntoLines(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"aa bb", "cccccccc", "d"}, wrapText("aa bb cccccccc d", 6))
}

func TestEveryErrorHasItsExitCode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("unknown flag"), exitUsage},
		{markFailure(errors.New("broken")), exitFailure},
		{markFailure(fmt.Errorf("x: %w", delta.ErrNotFound)), exitNotFound},
		{markFailure(fmt.Errorf("x: %w", &delta.StateError{})), exitState},
		{markFailure(fmt.Errorf("x: %w", &delta.InputError{})), exitUsage},
		{markFailure(fmt.Errorf("x: %w", delta.ErrNoSchema)), exitUnreachable},
		{markFailure(&unreachableError{"it", errors.New("refused\nrefused")}), exitUnreachable},
		{markFailure(errInterrupted), exitInterrupted},
		{&silentExit{7}, 7},
	} {
		require.Equal(t, test.want, exitCodeOf(test.err), "%v", test.err)
	}
	require.Equal(t, "it cannot be reached: refused", (&unreachableError{"it", errors.New("refused\nrefused")}).Error())
	require.Equal(t, "a [31mb\nc", formatError(errors.New("delta: a\x1b[31mb\nc")))
}

func TestAQuestionThatIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	reader := blockedReader{make(chan struct{})}
	defer close(reader.until)
	err := streams{in: reader, err: new(bytes.Buffer), isInteractive: true}.askToConfirm(ctx, false, "Sure?")
	require.Equal(t, exitInterrupted, exitCodeOf(err))
	require.NoError(t, streams{}.askToConfirm(t.Context(), true, "Sure?"))
	require.NoError(t, streams{in: strings.NewReader("YES\n"), err: new(bytes.Buffer), isInteractive: true}.askToConfirm(t.Context(), false, "Sure?"))
}

// blockedReader is a terminal without a user.
type blockedReader struct{ until chan struct{} }

func (b blockedReader) Read([]byte) (int, error) {
	<-b.until
	return 0, errors.New("closed")
}
