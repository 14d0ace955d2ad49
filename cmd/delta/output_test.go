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
	require.Equal(t, []string{"aa bb", "cccccccc", "d"}, wrap("aa bb cccccccc d", 6))
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
