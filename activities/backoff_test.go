package activities_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
)

func TestBackoffDoublesUpToTenMinutes(t *testing.T) {
	t.Parallel()
	for n, middle := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 8 * time.Second, 9: 256 * time.Second, 10: 512 * time.Second,
		11: 10 * time.Minute, 12: 10 * time.Minute, 21: 10 * time.Minute, 64: 10 * time.Minute, math.MaxInt16: 10 * time.Minute,
		math.MaxInt: 10 * time.Minute,
		// What is not an attempt counts as the first.
		0: time.Second, -1: time.Second, math.MinInt: time.Second,
	} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			least, most := time.Duration(math.MaxInt64), time.Duration(0)
			for range 2000 {
				wait := activities.RetryPolicy{}.Backoff(n)
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
