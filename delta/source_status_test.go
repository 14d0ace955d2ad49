package delta_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/backoff"
	"github.com/chariot-giving/delta/internal/soak"
)

// The status that a source reports is shown, even when it no longer runs. Without a report there is no lag.
func TestASourceSaysHowItStands(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var latest atomic.Pointer[delta.FeedReport]
	c := h.start(h.config(withSource(func(ctx context.Context, feed *delta.Feed) error {
		for backoff.Pause(ctx, 20*time.Millisecond) == nil {
			if report := latest.Load(); report != nil {
				feed.Report(*report)
			}
		}
		return ctx.Err()
	})))
	await := func(is func(s delta.SourceStatus) bool) delta.SourceStatus {
		t.Helper()
		var found delta.SourceStatus
		until(t, func() bool {
			all, err := c.Sources(t.Context())
			require.NoError(t, err)
			if len(all) == 0 {
				return false
			}
			found = all[0]
			return is(found)
		})
		return found
	}
	shows := func(samples ...string) {
		t.Helper()
		for _, sample := range samples {
			until(t, func() bool {
				var text strings.Builder
				require.NoError(t, h.client(h.config()).WriteMetrics(t.Context(), &text))
				return strings.Contains(text.String(), sample+"\n")
			}, "no sample "+sample)
		}
	}
	require.Nil(t, await(func(s delta.SourceStatus) bool { return s.Phase == delta.SourceRunning }).Lag)
	shows(`delta_source_phase{kind="fed",source="test",phase="running"} 1`)

	bytes, messages := int64(7), int64(8)
	latest.Store(&delta.FeedReport{IsReading: true, Reason: "it is new", BehindBytes: &bytes, BehindMessages: &messages})
	s := await(func(s delta.SourceStatus) bool { return s.Phase == delta.SourceReading })
	require.Equal(t, "it is new", s.Reason)
	require.NotNil(t, s.Lag, "the lag counts from its report")
	require.Equal(t, &bytes, s.BehindBytes)
	require.Equal(t, &messages, s.BehindMessages)
	shows(`delta_source_phase{kind="fed",source="test",phase="reading"} 1`, `delta_source_phase{kind="fed",source="test",phase="following"} 0`,
		`delta_source_behind_bytes{kind="fed",source="test"} 7`, `delta_source_behind_messages{kind="fed",source="test"} 8`)

	latest.Store(&delta.FeedReport{CaughtUpTo: time.Now().Add(-time.Hour)})
	s = await(func(s delta.SourceStatus) bool { return s.Phase == delta.SourceFollowing })
	require.GreaterOrEqual(t, *s.Lag, 59*time.Minute)
	require.Empty(t, s.Reason)
	require.Nil(t, s.BehindBytes)
	latest.Store(&delta.FeedReport{CaughtUpTo: time.Now()})
	await(func(s delta.SourceStatus) bool { return *s.Lag < time.Hour/2 })

	require.NoError(t, c.Stop(t.Context()))
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_source SET seen_at = seen_at - interval '2 hours', caught_up_at = caught_up_at - interval '2 hours'")
	require.NoError(t, err)
	s = await(func(s delta.SourceStatus) bool { return s.Phase == delta.SourceSilent })
	require.True(t, s.IsSilent)
	require.GreaterOrEqual(t, *s.Lag, 2*time.Hour)
	shows(`delta_sources_failing{kind="fed"} 1`, `delta_source_phase{kind="fed",source="test",phase="silent"} 1`)
}
