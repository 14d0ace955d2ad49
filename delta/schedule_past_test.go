package delta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
)

// Temporal reports the next runs of a schedule: seen from a later time, these are its past runs.
func TestPastRunsAreThoseThatTemporalMakes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	each := func(first, last int) []client.ScheduleRange { return []client.ScheduleRange{{Start: first, End: last}} }
	cron := func(zone string, texts ...string) delta.ScheduleSpec {
		return delta.ScheduleSpec{CronExpressions: texts, TimeZoneName: zone}
	}
	for name, spec := range map[string]delta.ScheduleSpec{
		"daily":                     cron("", "15 3 * * *"),
		"working days in Berlin":    cron("Europe/Berlin", "30 6 * * MON-FRI"),
		"quarters":                  cron("America/New_York", "0 12 1,15 */3 *"),
		"leap days":                 cron("Asia/Tokyo", "0 0 29 2 *"),
		"seconds":                   cron("", "10/20 59 23 * * * *"),
		"the last of long months":   cron("", "59 23 31 * *"),
		"where an hour is missing":  cron("Europe/Berlin", "30 1-3 25-31 3 * 2027"),
		"where an hour comes twice": cron("Europe/Berlin", "30 1-3 28-31 10 * 2027"),
		"intervals":                 cron("", "@every 6h/30m", "@every 90m"),
		"several":                   cron("Europe/Berlin", "30 6 * * MON-FRI", "0 12 1,15 */3 *", "@every 7h/30m"),
		"without nights and weekends": {
			Intervals: []client.ScheduleIntervalSpec{{Every: 5 * time.Second}},
			Skip: []client.ScheduleCalendarSpec{
				{DayOfWeek: []client.ScheduleRange{{Start: 0}, {Start: 6}}, Hour: each(0, 23), Minute: each(0, 59), Second: each(0, 59)},
				{Hour: each(0, 22), Minute: each(0, 59), Second: each(0, 59)},
				{Hour: each(23, 23), Minute: each(0, 58), Second: each(0, 59)},
			},
		},
		"from a time until another": {
			CronExpressions: []string{"0 * * * *"}, StartAt: time.Now().Add(3 * time.Hour), EndAt: time.Now().Add(7 * time.Hour),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := h.Prefix + "/" + name
			handle, err := h.Temporal.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
				ID: id, Spec: spec, Paused: true, Action: &client.ScheduleWorkflowAction{ID: id, Workflow: "none", TaskQueue: "none"},
			})
			require.NoError(t, err)
			found, err := handle.Describe(t.Context())
			require.NoError(t, err)
			require.NoError(t, handle.Delete(t.Context()))
			next := found.Info.NextActionTimes
			require.GreaterOrEqual(t, len(next), 4)
			previous := func(at time.Time) time.Time {
				run, err := delta.PreviousRun(spec, at)
				require.NoError(t, err)
				return run
			}
			for i, at := range next {
				require.Equal(t, at.UTC(), previous(at))
				require.Equal(t, at.UTC(), previous(at.Add(time.Second-time.Nanosecond)))
				if i > 0 {
					require.Equal(t, next[i-1].UTC(), previous(at.Add(-time.Second)), "before %s", at)
				}
			}
			if !spec.StartAt.IsZero() {
				require.Zero(t, previous(spec.StartAt.Add(-time.Second)))
				require.Equal(t, next[len(next)-1].UTC(), previous(spec.EndAt.Add(24*time.Hour)))
			}
		})
	}
}

func TestAScheduleThatHasNotRunHasNoPastRun(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	all := []client.ScheduleRange{{Start: 0, End: 59}}
	for name, spec := range map[string]delta.ScheduleSpec{
		"it begins later":    {CronExpressions: []string{"0 3 * * *"}, StartAt: now.Add(time.Second)},
		"its year is ahead":  {CronExpressions: []string{"0 3 * * * 2027"}},
		"there is no day":    {CronExpressions: []string{"0 3 30 2 *"}},
		"it skips each time": {CronExpressions: []string{"* * * * * * *"}, Skip: []client.ScheduleCalendarSpec{{Second: all, Minute: all, Hour: []client.ScheduleRange{{End: 23}}}}},
	} {
		run, err := delta.PreviousRun(spec, now)
		require.NoError(t, err)
		require.Zero(t, run, name)
	}
}

// A pass may take half of the time between two runs, at most a day.
func TestARunOfACalendarIsDueAfterItsGrace(t *testing.T) {
	t.Parallel()
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) }
	daily := delta.ScheduleSpec{CronExpressions: []string{"0 3 * * *"}}
	weekly := delta.ScheduleSpec{CronExpressions: []string{"0 3 * * MON"}}
	shaken := delta.ScheduleSpec{CronExpressions: []string{"0 3 * * *"}, Jitter: time.Hour}
	for _, c := range []struct {
		spec     delta.ScheduleSpec
		now, due time.Time
	}{
		{daily, at(28, 3, 0), at(27, 3, 0)},
		{daily, at(28, 14, 59), at(27, 3, 0)},
		{daily, at(28, 15, 0), at(28, 3, 0)},
		{shaken, at(28, 15, 59), at(27, 3, 0)},
		{shaken, at(28, 16, 0), at(28, 3, 0)},
		{weekly, at(24, 2, 59), at(16, 3, 0)}, // the 23rd is a Monday
		{weekly, at(24, 3, 0), at(23, 3, 0)},
		{delta.ScheduleSpec{CronExpressions: []string{"0 3 28 11 * 2026"}}, at(28, 20, 0), time.Time{}},
		{delta.ScheduleSpec{CronExpressions: []string{"0 3 28 11 * 2026"}}, at(29, 3, 0), at(28, 3, 0)},
	} {
		due, err := delta.DueRun(c.spec, c.now)
		require.NoError(t, err)
		require.Equal(t, c.due, due, "%v at %s", c.spec.CronExpressions, c.now)
	}
}
