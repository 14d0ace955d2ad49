package delta_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/soak"
)

// timed is a kind whose settings a test chooses. Settings are read from a zero object, so each test needs its own type.
type timed struct{ account }

func (timed) Kind() string { return "timed" }

type (
	workdays  struct{ timed }
	calendars struct{ timed }
	fraction  struct{ timed }
)

func (workdays) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformSchedule: &delta.ScheduleSpec{
		CronExpressions: []string{"30 6 * * MON-FRI # before work", "0 12 1,15 */3 *", "@every 6h/30m"}, TimeZoneName: "Europe/Berlin",
	}}
}

func (calendars) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformSchedule: &delta.ScheduleSpec{
		Calendars: []client.ScheduleCalendarSpec{{Hour: []client.ScheduleRange{{Start: 8, End: 18, Step: 2}}}},
		Skip:      []client.ScheduleCalendarSpec{{DayOfWeek: []client.ScheduleRange{{}, {Start: 6}}, Hour: []client.ScheduleRange{{End: 23}}}},
		EndAt:     time.Date(2090, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), Jitter: time.Minute,
	}}
}

func (fraction) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: 2900 * time.Millisecond}
}

func (h *harness) describeSchedule(name string) (found *client.ScheduleDescription) {
	h.t.Helper()
	until(h.t, func() (ok bool) {
		var err error
		found, err = h.Temporal.ScheduleClient().GetHandle(h.t.Context(), h.Prefix+"/"+name).Describe(h.t.Context())
		if errors.Is(err, context.DeadlineExceeded) {
			return false // a busy machine
		}
		require.NoError(h.t, err)
		return true
	})
	return found
}

// Temporal returns a schedule's spec in another form than it was given. A client must not take that for a change.
func TestInformersRunByCalendarsAndCronExpressions(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	looks := &looking{}
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(looks.count))}
	start := func(add func(*delta.Controllers)) *delta.Client {
		config := h.config(add)
		config.MaintenanceJobInterval = 100 * time.Millisecond
		return h.start(config)
	}
	quiet := func() {
		h.t.Helper()
		looks.awaitMore(t, 4)
		before := h.describeSchedule("inform:timed").Info.LastUpdateAt
		looks.awaitMore(t, 6)
		require.Equal(t, before, h.describeSchedule("inform:timed").Info.LastUpdateAt)
	}
	c := start(with(&controller[workdays]{}))
	spec := h.describeSchedule("inform:timed").Schedule.Spec
	require.Equal(t, "Europe/Berlin", spec.TimeZoneName)
	require.Len(t, spec.Calendars, 2)
	require.Equal(t, []client.ScheduleRange{{Start: 1, End: 5, Step: 1}}, spec.Calendars[0].DayOfWeek)
	require.Equal(t, "before work", spec.Calendars[0].Comment)
	require.Equal(t, []client.ScheduleRange{{Start: 1, End: 12, Step: 3}}, spec.Calendars[1].Month)
	require.Equal(t, []client.ScheduleIntervalSpec{{Every: 6 * time.Hour, Offset: 30 * time.Minute}}, spec.Intervals)
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for _, at := range h.describeSchedule("inform:timed").Info.NextActionTimes {
		if m := at.Unix() % (6 * 3600); m == 1800 {
			continue // of the interval
		}
		clock := at.In(berlin).Format("15:04")
		require.Contains(t, []string{"06:30", "12:00"}, clock)
	}
	quiet()
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.Len(t, kinds[0].InformSchedule.Calendars, 2)
	require.Zero(t, kinds[0].InformInterval)
	require.NoError(t, c.Stop(t.Context()))

	start(with(&controller[calendars]{}))
	spec = h.describeSchedule("inform:timed").Schedule.Spec
	require.Empty(t, spec.TimeZoneName)
	require.Equal(t, time.Date(2090, 1, 2, 2, 4, 5, 0, time.UTC), spec.EndAt)
	require.Len(t, spec.Skip, 1)
	quiet()
}

// Temporal's schedules drop fractions of a second: without a correction, 2.9 s would be 2 s.
func TestPartsOfASecondOfAnIntervalCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start(h.config(with(&controller[fraction]{})))
	found := h.describeSchedule("inform:timed")
	next := found.Info.NextActionTimes
	require.GreaterOrEqual(t, len(next), 10)
	const every = 2900 * time.Millisecond
	first := next[0].UnixNano()/int64(every) + 1 // its number, because the run happens within the second that begins then
	for i, at := range next {
		exact := time.Unix(0, (first+int64(i))*int64(every))
		if next[0].UnixNano()%int64(every) == 0 {
			exact = exact.Add(-every)
		}
		require.Equal(t, exact.Truncate(time.Second).UTC(), at.UTC())
	}
}

func TestSchedulesThatTemporalWouldRefuseAreRefused(t *testing.T) {
	t.Parallel()
	cron := func(all ...string) delta.ScheduleSpec { return delta.ScheduleSpec{CronExpressions: all} }
	hours := func(r client.ScheduleRange) delta.ScheduleSpec {
		return delta.ScheduleSpec{Calendars: []client.ScheduleCalendarSpec{{Hour: []client.ScheduleRange{r}}}}
	}
	for _, c := range []struct {
		spec  delta.ScheduleSpec
		field string
		rule  string
	}{
		{delta.ScheduleSpec{}, "InformSchedule", "must have a calendar"},
		{cron("* * *"), "InformSchedule.CronExpressions[0]", "it has 3 fields"},
		{cron("0 0 * * *", "61 * * * *"), "InformSchedule.CronExpressions[1]", `minute has "61", which must be between 0 and 59`},
		{cron("0 0 * * FUN"), "InformSchedule.CronExpressions[0]", `day of week has "FUN"`},
		{cron("0 9-5 * * *"), "InformSchedule.CronExpressions[0]", "ends before it begins"},
		{cron("*/0 * * * *"), "InformSchedule.CronExpressions[0]", `the step "0"`},
		{cron("@every 1500ms"), "InformSchedule.Intervals[0].Every", "whole seconds"},
		{cron("TZ=Europe/Berlin 0 0 * * *", "TZ=Europe/Paris 0 0 * * *"), "InformSchedule.CronExpressions[1]", "must be in the time zone of the others"},
		{cron("TZ=Europe/Berln 0 0 * * *"), "InformSchedule.TimeZoneName", "must be the name of a time zone"},
		{hours(client.ScheduleRange{Start: 24}), "InformSchedule.Calendars[0].Hour[0]", "must be a range from 0 to 23"},
		{hours(client.ScheduleRange{Start: 5, End: 3}), "InformSchedule.Calendars[0].Hour[0]", "must be a range"},
	} {
		_, err := delta.CheckSettings(delta.ObjectSettings{InformSchedule: &c.spec})
		var input *delta.InputError
		require.ErrorAs(t, err, &input, "%+v", c.spec)
		require.Equal(t, c.field, input.Field)
		require.Contains(t, input.Rule, c.rule)
	}
	for _, settings := range []delta.ObjectSettings{
		{InformSchedule: &delta.ScheduleSpec{CronExpressions: []string{"@daily"}}, InformInterval: time.Hour},
		{InformInterval: 1501 * time.Millisecond},
		{FullListingInterval: time.Millisecond},
		{FullListingInterval: time.Hour, CompleteListing: true},
	} {
		_, err := delta.CheckSettings(settings)
		require.ErrorAs(t, err, new(*delta.InputError), "%+v", settings)
	}
	sunday, err := delta.CheckSettings(delta.ObjectSettings{InformSchedule: &delta.ScheduleSpec{CronExpressions: []string{"0 0 * * fri-7"}}})
	require.NoError(t, err)
	require.Equal(t, []client.ScheduleRange{{Start: 5, End: 6, Step: 1}, {Step: 1}}, sunday.InformSchedule.Calendars[0].DayOfWeek)
}

func TestAClientWithoutInformersLeavesThemToOthers(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	off := h.config(with(&controller[hourly]{}))
	off.DisableInformers, off.ResourceInformInterval, off.MaintenanceJobInterval = true, 2*time.Hour, 50*time.Millisecond
	var alone, beside logBuffer
	off.Logger = alone.logger()
	c := h.start(off)
	require.Contains(t, alone.String(), "no other has started with these kinds")
	require.Contains(t, alone.String(), "kinds=[hourly]")
	schedule := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:hourly")
	_, err := schedule.Describe(t.Context())
	require.ErrorAs(t, err, new(*serviceerror.NotFound))
	row, err := c.Sync(t.Context(), hourly{account{Name: "a"}}, nil)
	require.NoError(t, err)
	require.EqualValues(t, "synced", row.State, "it works")
	status, err := c.TemporalStatus(t.Context(), "hourly")
	require.NoError(t, err)
	require.Empty(t, status.Kinds["hourly"].InformWorkers)

	passes := make(chan struct{}, 10)
	on := h.config(with(&controller[hourly]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan hourly, error) {
		passes <- struct{}{}
		return sendAll[hourly](ctx), nil
	}}))
	h.start(on)
	<-passes
	off.Logger = beside.logger()
	h.start(off) // starts last, but its interval must not count
	require.Equal(t, time.Hour, h.describeSchedule("inform:hourly").Schedule.Spec.Intervals[0].Every)
	_, err = c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "hourly"}, nil)
	require.NoError(t, err, "another client runs it")
	<-passes
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Hour, kinds[0].InformInterval)
	require.NotContains(t, beside.String(), "no other has started")
}

// A client without informers does not warn of kinds that list nothing anyway.
func TestAClientWithoutInformersMissesNoneThatDoNotRun(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logged logBuffer
	config := h.config(addTo[blind](blindController{}), with(&controller[hourly]{}))
	config.DisableInformers, config.Logger = true, logged.logger()
	config.Kinds = map[string]delta.ObjectSettings{"hourly": {InformInterval: -1}}
	h.start(config)
	require.NotContains(t, logged.String(), "no other has started")
}

// A client without informers warns, like others, that it cannot finalize resources that other clients could.
func TestAClientWithoutInformersSaysThatItHasNoFinalizer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.exec("INSERT INTO delta_controller (name, inform_interval, finalizes) VALUES ('hourly', '1 hour', TRUE)")
	var logged logBuffer
	config := h.config(with(&controller[hourly]{}))
	config.DisableInformers, config.Logger = true, logged.logger()
	h.start(config)
	require.Contains(t, logged.String(), "this client's controller has no Finalizer")
}
