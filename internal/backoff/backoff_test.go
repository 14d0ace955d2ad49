package backoff_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/backoff"
)

func TestDelaysDoubleUpToTheLongestAndAreSpread(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 50 {
		b := backoff.New(time.Second, 5*time.Second)
		for _, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			delay := b.Delay()
			require.GreaterOrEqual(t, delay, most/2)
			require.LessOrEqual(t, delay, most)
			seen[delay] = true
		}
		b.Reset()
		require.LessOrEqual(t, b.Delay(), time.Second)
	}
	require.Greater(t, len(seen), 100, "clients that failed together do not come back together")
}

func TestAPauseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	require.NoError(t, backoff.Pause(t.Context(), time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, backoff.Pause(ctx, time.Hour), context.Canceled)
	require.ErrorIs(t, backoff.Pause(ctx, 0), context.Canceled)
}

func TestWhichErrorsOfPostgresPass(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"08006", "40001", "40P01", "53300", "57014", "57P01", "58030", "25006", "55P03", "55006", "XX000"} {
		require.True(t, backoff.IsTransientCode(code), code)
	}
	for _, code := range []string{"", "2", "23505", "42P01", "22P05", "25001", "55000", "XX001", "XX002", "P0001"} {
		require.False(t, backoff.IsTransientCode(code), code)
	}
}

// The last transient error says why, rather than that the time is over.
func TestARetryReturnsWhatWasInTheWay(t *testing.T) {
	t.Parallel()
	away, broken := errors.New("away"), errors.New("broken")
	isAway := func(err error) bool { return errors.Is(err, away) }
	retry := func(errs ...error) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return backoff.Retry(ctx, backoff.New(time.Nanosecond, time.Nanosecond), isAway, func() error {
			err := errs[0]
			if errs = errs[1:]; len(errs) == 0 {
				cancel()
			}
			return err
		})
	}
	require.NoError(t, retry(nil))
	require.NoError(t, retry(away, away, nil))
	require.Equal(t, broken, retry(away, broken, nil))
	require.Equal(t, away, retry(away, context.Canceled))
}
