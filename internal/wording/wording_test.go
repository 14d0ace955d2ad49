package wording_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/wording"
)

func TestTimesAndNumbersAsAPersonReadsThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 59*time.Second + 900*time.Millisecond: "59s", time.Minute: "1m", 90 * time.Second: "1m30s", 25 * time.Hour: "1d1h",
		48 * time.Hour: "2d", 61 * time.Minute: "1h1m", -time.Hour: "-1h",
	} {
		require.Equal(t, want, wording.Duration(d))
	}
	require.Equal(t, "1.5s", wording.Interval(1500*time.Millisecond))
	require.Equal(t, "1h", wording.Interval(time.Hour))
	now := time.Now()
	at := func(d time.Duration) *time.Time { v := now.Add(d); return &v }
	require.Equal(t, "-", wording.When(nil, now))
	require.Equal(t, "now", wording.When(at(-time.Millisecond), now))
	require.Equal(t, "2h ago", wording.When(at(-2*time.Hour), now))
	require.Equal(t, "in 2h", wording.When(at(2*time.Hour), now))
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		require.Equal(t, want, wording.Number(n))
	}
	for n, want := range map[int64]string{0: "0", 9_999: "9,999", 10_000: "~10,000", 10_499: "~10,000", 10_500: "~11,000", 99_600: "~100,000", 987_654: "~990,000"} {
		require.Equal(t, want, wording.Estimate(n))
	}
	require.Equal(t, "1 resource", wording.Count(1, "resource"))
	require.Equal(t, "0 resources", wording.Count(0, "resource"))
	require.Equal(t, "1 change is", wording.CountIs(1, "change"))
	require.Equal(t, "2 changes are", wording.CountIs(2, "change"))
	require.Equal(t, "a b c", wording.Line("a\n\tb\x1bc"))
	require.Equal(t, "1 KiB", wording.Size(1))
	require.Equal(t, "3 MiB", wording.Size(3<<20))
}
