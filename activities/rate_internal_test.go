package activities

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that stops loses the calls that it has reserved, for all clients. However many calls wait, it reserves few.
func TestWaitingCallsReserveFewAhead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate   float64
		at1Ask time.Duration
	}{{1, time.Second}, {1000, 100 * time.Millisecond}} {
		var asked atomic.Int64
		l := newRateLimit("kind slow", c.rate, func(_ context.Context, d time.Duration) (time.Duration, error) {
			asked.Add(int64(d))
			return time.Hour, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		const calls = 300
		var begun atomic.Int64
		for range calls {
			go func() {
				begun.Add(1)
				ended <- l.Wait(ctx)
			}()
		}
		for len(l.turns) < cap(l.turns) || begun.Load() < calls {
			runtime.Gosched()
		}
		stop()
		for range calls {
			require.ErrorIs(t, <-ended, context.Canceled)
		}
		require.LessOrEqual(t, time.Duration(asked.Load()), 2*c.at1Ask)
	}
}

func TestACallThatIsGivenBackBeginsInsteadOfAnother(t *testing.T) {
	t.Parallel()
	asked := 0
	l := newRateLimit("kind slow", 1, func(context.Context, time.Duration) (time.Duration, error) {
		asked++
		return 0, nil
	})
	require.NoError(t, l.Wait(t.Context()))
	require.Equal(t, 1, asked)
	l.giveBack()
	require.NoError(t, l.Wait(t.Context()))
	require.Equal(t, 1, asked, "it was given back")
	require.NoError(t, l.Wait(t.Context()))
	require.Equal(t, 2, asked)

	// Calls that were given back long ago would come together, faster than the rate.
	l.giveBack()
	l.spareUntil = time.Now().Add(-time.Millisecond)
	require.NoError(t, l.Wait(t.Context()))
	require.Equal(t, 3, asked)
}
