package messagedb_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
)

func TestPollingStrategies(t *testing.T) {
	t.Parallel()
	const ms, s = time.Millisecond, time.Second
	for name, c := range map[string]struct {
		strategy  messagedb.PollingStrategy
		expected  int
		retrieved []int
		want      []time.Duration
	}{
		"constant":             {messagedb.ConstantPolling(s), 2, []int{0, 1, 2}, []time.Duration{s, s, 0}},
		"idle":                 {messagedb.IdlePolling(s), 2, []int{0, 1, 2}, []time.Duration{s, 0, 0}},
		"exponential":          {messagedb.ExpBackoffPolling(s, 10*s, 2), 2, []int{2, 1, 0, 0, 0, 0, 0, 0}, []time.Duration{0, s, s, 2 * s, 4 * s, 8 * s, 10 * s, 10 * s}},
		"exponential, again":   {messagedb.ExpBackoffPolling(s, 10*s, 3), 2, []int{0, 0, 1, 0, 0, 2, 0}, []time.Duration{s, 3 * s, s, s, 3 * s, 0, s}},
		"dynamic":              {messagedb.DynamicPolling(.75, 50*ms, 100*ms, s), 100, []int{90, 50, 60, 70, 80, 75, 100}, []time.Duration{100 * ms, 150 * ms, 200 * ms, 250 * ms, 200 * ms, 200 * ms, 0}},
		"dynamic, at its ends": {messagedb.DynamicPolling(.5, s, 100*ms, 2*s), 2, []int{0, 0, 0, 2, 2, 1}, []time.Duration{1100 * ms, 2 * s, 2 * s, 0, 0, 100 * ms}},
		"nonsense":             {messagedb.ExpBackoffPolling(-1, -1, -1), 2, []int{0, 0}, []time.Duration{100 * ms, 100 * ms}},
	} {
		for range 2 { // each subscription gets a new strategy
			polling := c.strategy()
			var got []time.Duration
			for _, n := range c.retrieved {
				got = append(got, polling(n, c.expected))
			}
			require.Equal(t, c.want, got, name)
		}
	}
}

func TestABackoffNeverOverflows(t *testing.T) {
	t.Parallel()
	for _, multiplier := range []float64{1, 1.5, 2, 1e300, math.Inf(1), math.NaN()} {
		polling := messagedb.ExpBackoffPolling(50*time.Millisecond, 5*time.Second, multiplier)()
		for range 10000 {
			if d := polling(0, 1000); d < 50*time.Millisecond || d > 5*time.Second {
				t.Fatalf("%v: %v", multiplier, d)
			}
		}
	}
	forever := messagedb.ExpBackoffPolling(time.Second, math.MaxInt64, 2)()
	for range 200 {
		require.GreaterOrEqual(t, forever(0, 1), time.Second)
	}
}
