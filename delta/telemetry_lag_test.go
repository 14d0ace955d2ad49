package delta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/hostile"
)

// Rows that dispatchers skip on purpose do not count as waiting: otherwise an alert on the age of the outbox would be false.
func TestPausedAndSnoozedResourcesDoNotCountAsWaiting(t *testing.T) {
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	for _, o := range []delta.Object{
		account{Name: "waits"},
		account{Name: "paused"},
		account{Name: "worked"},
		account{Name: "ended"},
		together{account{Name: "kind paused"}},
		briefly{account{Name: "kind snoozed"}},
		measuredKind{account{Name: "kind woken"}},
		mirror{Name: "kind without a client"},
	} {
		_, err := c.Inform(t.Context(), o, nil)
		require.NoError(t, err)
	}
	_, err := c.Inform(t.Context(), account{Name: "namespace snoozed"}, &delta.InformOpts{Namespace: "asleep"})
	require.NoError(t, err)
	h.exec(`insert into delta_controller (name, inform_interval, paused, snoozed_until, snooze_spread) values
		('account', '1 hour', false, null, '0'), ('together', '1 hour', true, null, '0'),
		('briefly', '1 hour', false, now() - interval '10 seconds', '1 day'),
		('measured', '1 hour', false, now() - interval '2 minutes', '1 minute')`)
	h.exec(`insert into delta_namespace (name, snoozed_until) values ('asleep', now() + interval '10 minutes')`)
	h.exec(`update delta_resource set dispatch_at = now() - interval '1 hour'`)
	h.exec(`update delta_resource set dispatch_at = now() - interval '2 hours', paused = true where object_id = 'paused'`)
	h.exec(`update delta_resource set dispatch_at = now() - interval '2 hours' where namespace = 'asleep'`)
	h.exec(`update delta_resource set dispatch_at = now() - interval '2 hours', claim = gen_random_uuid(), claimed_until = now() + interval '1 hour'
		where object_id = 'worked'`)
	h.exec(`update delta_resource set claim = gen_random_uuid(), claimed_until = now() - interval '1 minute' where object_id = 'ended'`)
	reader := h.clientWithPool(h.config(), readsOnly)
	var found map[string]float64
	until(t, func() bool { // they are read within 5 s
		found = scrapeMetrics(t, reader)
		return found["delta_database_up"] == 1
	})
	for kind, wanted := range map[string]struct{ due, least, most float64 }{
		"account": {2, 3600, 5400}, "together": {0, 0, 0}, "briefly": {0, 0, 0}, "measured": {1, 60, 1800}, "mirror": {1, 3600, 5400},
	} {
		require.InDelta(t, wanted.due, found[`delta_outbox_due{kind="`+kind+`"}`], 0, kind)
		require.GreaterOrEqual(t, found[`delta_outbox_age_seconds{kind="`+kind+`"}`], wanted.least, kind)
		require.LessOrEqual(t, found[`delta_outbox_age_seconds{kind="`+kind+`"}`], wanted.most, kind)
	}
}

// Measurements, `delta metrics` and Client.Kinds have the same lag. Informers that were paused have none.
func TestTheLagOfListingsIsMeasured(t *testing.T) {
	hostile.NeedsDirect(t, "its connections have parameters of their own")
	t.Parallel()
	h := newHarness(t)
	hourly, err := delta.EncodedSpec(delta.ScheduleSpec{CronExpressions: []string{"0 * * * *"}})
	require.NoError(t, err)
	h.exec(`insert into delta_controller (name, inform_interval, lists_nothing, inform_paused) values
		('never', '1 hour', false, false), ('unlisted', '1 hour', false, false), ('daily', '1 day', false, false), ('late', '1 hour', false, false),
		('asked', '-1 second', false, false), ('unasked', '-1 second', false, false), ('unset', '0', false, false), ('broken', '0', false, false),
		('stopped', '1 hour', false, true), ('nothing', '1 hour', true, false), ('sharded', '1 hour', false, false), ('parted', '1 hour', false, false),
		('calendar', '0', false, false), ('punctual', '0', false, false), ('uncalled', '0', false, false), ('full', '-1 second', false, false),
		('fresh', '1 hour', false, false), ('changed', '1 hour', false, false), ('first', '1 hour', false, false), ('jittered', '2 hours', false, false)`)
	h.exec(`update delta_controller set inform_jitter = '90 minutes' where name = 'jittered'`)
	h.exec(`update delta_controller set informs_since = now() - case when name in ('fresh', 'changed') then interval '10 minutes' else interval '4 hours' end`)
	_, err = h.Pool.Exec(t.Context(), `update delta_controller set inform_schedule = $1 where name in ('calendar', 'punctual', 'uncalled')`, hourly)
	require.NoError(t, err)
	h.exec(`update delta_controller set full_listing_interval = '1 hour' where name = 'full'`)
	h.exec(`insert into delta_shard (kind, shard, succeeded_at, failed_at, error, paused, gone_at) values
		('never', '', null, now(), '503', false, null), ('unlisted', '', null, null, '', false, null),
		('daily', '', now() - interval '20 hours', null, '', false, null), ('late', '', now() - interval '3 hours', null, '', false, null),
		('asked', '', now() - interval '90 days', null, '', false, null), ('unset', '', now() - interval '90 days', null, '', false, null),
		('broken', '', now() - interval '90 days', now(), '503', false, null), ('stopped', '', now() - interval '90 days', now(), '503', false, null),
		('nothing', '', now() - interval '90 days', null, '', false, null), ('full', '', now() - interval '3 hours', null, '', false, null),
		('calendar', '', now() - interval '3 hours', null, '', false, null), ('punctual', '', now() - interval '20 minutes', null, '', false, null),
		('changed', '', now() - interval '90 days', null, '', false, null), ('jittered', '', now() - interval '4 hours', null, '', false, null),
		('sharded', '', now(), null, '', false, null), ('sharded', 'a', now() - interval '10 minutes', now(), '503', false, null),
		('sharded', 'new', null, now(), '503', false, null), ('sharded', 'paused', now() - interval '90 days', now(), '503', true, null),
		('sharded', 'gone', now() - interval '180 days', now(), '503', false, now()),
		('parted', '', now(), null, '', false, null), ('parted', 'a', null, null, '', false, null),
		('first', '', now(), null, '', false, null), ('first', 'a', null, null, '', false, null)`)
	h.exec(`update delta_shard set named_at = now() - interval '2 hours' where kind = 'parted'`)
	type measured struct {
		age, lag time.Duration // age is negative if there is none
		failing  int64
	}
	const day = 24 * time.Hour
	wanted := map[string]measured{
		"never": {-1, 4 * time.Hour, 1}, "unlisted": {-1, 4 * time.Hour, 0}, "daily": {20 * time.Hour, 0, 0}, "late": {3 * time.Hour, 3 * time.Hour, 0},
		"asked": {90 * day, 0, 0}, "unset": {90 * day, 0, 0}, "broken": {90 * day, 90 * day, 1}, "stopped": {90 * day, 0, 0},
		"sharded": {90 * day, 10 * time.Minute, 2}, "parted": {-1, 2 * time.Hour, 0}, "first": {-1, 0, 0},
		"calendar": {3 * time.Hour, 3 * time.Hour, 0}, "punctual": {20 * time.Minute, 0, 0}, "uncalled": {-1, 4 * time.Hour, 0},
		"full": {3 * time.Hour, 3 * time.Hour, 0}, "fresh": {-1, 0, 0}, "changed": {90 * day, 0, 0},
		"jittered": {4 * time.Hour, 0, 0}, // two hours, half of that, and its jitter
	}
	near := func(wanted, is time.Duration, of string) {
		t.Helper()
		require.InDelta(t, wanted.Seconds(), is.Seconds(), patience.Seconds(), of)
	}

	c, telemetry := h.startMeasuring(h.config(with(&controller[measuredKind]{})))
	passes := comesNow(t, telemetry, isMeasured).Passes
	reader := h.clientWithPool(h.config(), readsOnly)
	var found map[string]float64
	until(t, func() bool { // they are read within 5 s
		found = scrapeMetrics(t, reader)
		return found["delta_database_up"] == 1
	})
	require.Len(t, passes, len(wanted), "informers with a schedule, or with an ended pass")
	for _, p := range passes {
		w, is := wanted[p.Kind], h.kindStatus(c, p.Kind)
		of := `{kind="` + p.Kind + `"}`
		near(w.lag, p.Lag, p.Kind)
		near(w.lag, is.Lag, p.Kind)
		near(w.lag, time.Duration(found["delta_pass_lag_seconds"+of]*float64(time.Second)), p.Kind)
		require.Contains(t, found, "delta_pass_lag_seconds"+of)
		require.Equal(t, w.failing, p.Failing, p.Kind)
		require.InDelta(t, float64(w.failing), found["delta_pass_failing"+of], 0, p.Kind)
		if w.age < 0 {
			require.Nil(t, p.Age, p.Kind)
			require.NotContains(t, found, "delta_pass_age_seconds"+of)
			continue
		}
		near(w.age, *p.Age, p.Kind)
		near(w.age, time.Duration(found["delta_pass_age_seconds"+of]*float64(time.Second)), p.Kind)
	}
	require.NotContains(t, found, `delta_pass_lag_seconds{kind="unasked"}`)
	require.NotContains(t, found, `delta_pass_lag_seconds{kind="nothing"}`)
}
