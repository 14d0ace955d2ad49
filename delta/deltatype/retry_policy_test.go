package deltatype_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestBackoffTriplesUpToHalfAnHour(t *testing.T) {
	t.Parallel()
	for n, middle := range map[int]time.Duration{
		1: time.Second, 2: 3 * time.Second, 3: 9 * time.Second, 4: 27 * time.Second, 6: 243 * time.Second, 7: 729 * time.Second,
		8: 30 * time.Minute, 9: 30 * time.Minute, 21: 30 * time.Minute, 64: 30 * time.Minute, math.MaxInt16: 30 * time.Minute,
		math.MaxInt: 30 * time.Minute,
		// What is not an attempt counts as the first.
		0: time.Second, -1: time.Second, math.MinInt: time.Second,
	} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			least, most := time.Duration(math.MaxInt64), time.Duration(0)
			for range 2000 {
				wait := deltatype.RetryPolicy{}.Backoff(n)
				least, most = min(least, wait), max(most, wait)
			}
			// Give or take a tenth, and all of that tenth.
			require.GreaterOrEqual(t, least, middle*9/10)
			require.LessOrEqual(t, most, middle*11/10)
			require.Less(t, least, middle*92/100)
			require.Greater(t, most, middle*108/100)
		})
	}
}

// The default number of attempts, ten, has nine waits. The docs give their sum: 70 to 86 minutes.
func TestTheDefaultAttemptsLastForMoreThanAnHour(t *testing.T) {
	t.Parallel()
	const attempts = 10
	var middle time.Duration
	for n := 1; n < attempts; n++ {
		middle += deltatype.RetryPolicy{}.Wait(n)
	}
	require.Equal(t, 78*time.Minute+13*time.Second, middle)
	require.Equal(t, 70, int((middle * 9 / 10).Minutes()))
	require.Equal(t, 86, int((middle * 11 / 10).Minutes()))
	for range 100 {
		var all time.Duration
		for n := 1; n < attempts; n++ {
			all += deltatype.RetryPolicy{}.Backoff(n)
		}
		require.GreaterOrEqual(t, all, middle*9/10-time.Millisecond)
		require.LessOrEqual(t, all, middle*11/10)
	}
}
