package delta_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestErrorsAreGroupedByTheirCommonPattern(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	_, err := h.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, errors)
		SELECT kind, 'r' || i, 'default', state::delta_resource_state, 10, '', '{}', ARRAY[
			jsonb_build_object('at', now() - interval '1 day', 'attempt', 1, 'error', 'an earlier one'),
			jsonb_build_object('at', now() - i * interval '1 minute', 'attempt', 2, 'error', error)]
		FROM (VALUES
			('account', 1, 'degraded', E'user "ann" has 12 seats\nand a second line'), ('account', 2, 'failed', 'user "bob" has 7 seats'),
			('account', 3, 'degraded', 'user "cay" has 1 seats'), ('account', 4, 'degraded', 'no plan 018f2f6e-33aa-7c11-9e55-0242ac120002'),
			('account', 5, 'synced', 'user "dan" has 1 seats'), ('account', 6, 'deleted', '404'), ('account', 7, 'scheduled', 'user "eve" has 1 seats'),
			('other', 8, 'degraded', 'of another kind')) v (kind, i, state, error)`)
	require.NoError(t, err)
	groups, read, err := c.ErrorGroups(t.Context(), "account")
	require.NoError(t, err)
	require.EqualValues(t, 4, read)
	require.Len(t, groups, 2)
	seats, plan := groups[0], groups[1]
	require.Equal(t, `user "…" has # seats`, seats.Pattern)
	require.EqualValues(t, 3, seats.Count)
	require.EqualValues(t, 2, seats.Degraded)
	require.Equal(t, []string{"r1", "r2", "r3"}, seats.ObjectIDs)
	require.Equal(t, "user \"ann\" has 12 seats\nand a second line", seats.Text)
	require.Equal(t, 2*time.Minute, seats.LastAt.Sub(seats.FirstAt))
	require.Equal(t, time.UTC, seats.LastAt.Location())
	require.Equal(t, "no plan #", plan.Pattern)
	require.EqualValues(t, 1, plan.Count)

	groups, read, err = c.ErrorGroups(t.Context(), "nobody")
	require.NoError(t, err)
	require.Empty(t, groups)
	require.Zero(t, read)
	_, _, err = c.ErrorGroups(t.Context(), "no/kind")
	require.ErrorAs(t, err, new(*delta.InputError))

	// Both have a bound.
	_, err = h.Pool.Exec(t.Context(), `
		INSERT INTO delta_resource (kind, object_id, namespace, state, max_attempts, hash, object, errors)
		SELECT 'many', i::text, 'default', 'degraded', 10, '', '{}', ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', repeat('x', i % 60))]
		FROM generate_series(1, $1::int + 1) i`, delta.MaxErrorsGrouped)
	require.NoError(t, err)
	groups, read, err = c.ErrorGroups(t.Context(), "many")
	require.NoError(t, err)
	require.EqualValues(t, delta.MaxErrorsGrouped, read)
	require.Len(t, groups, 50)
}

func TestFiguresAreAddedUpOverSteps(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	since := time.Now().UTC().Add(-3 * time.Hour).Truncate(time.Minute)
	add := func(kind string, at time.Duration, synced, failed, bucket int) {
		t.Helper()
		_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_figure (kind, minute, synced, finalized, failed, degraded, deleted, snoozed, undecodable, seconds, durations)
			SELECT $1, $2, $3, 0, $4, 0, 0, 0, 0, 1, array_agg(CASE i WHEN $5 THEN $3::bigint + $4 ELSE 0 END ORDER BY i) FROM generate_series(1, 25) i`,
			kind, since.Add(at), synced, failed, bucket)
		require.NoError(t, err)
	}
	_, err := h.Pool.Exec(t.Context(), `INSERT INTO delta_controller (name, inform_interval) VALUES ('account', '1h'), ('other', '1h')`)
	require.NoError(t, err)
	add("account", -time.Minute, 100, 0, 1) // before
	add("account", 0, 18, 0, 1)
	add("account", 9*time.Minute, 0, 2, 11) // in the same step, of calls of up to 1024 ms
	add("account", 10*time.Minute, 5, 0, 1)
	add("account", 65*time.Minute, 7, 0, 1)
	add("other", 3*time.Minute, 1, 0, 1)

	steps, err := c.FigureSteps(t.Context(), "account", since.Add(30*time.Second), 10*time.Minute)
	require.NoError(t, err)
	require.Len(t, steps, 3)
	require.Equal(t, []time.Time{since, since.Add(10 * time.Minute), since.Add(time.Hour)}, []time.Time{steps[0].Minute, steps[1].Minute, steps[2].Minute})
	require.Equal(t, map[delta.Outcome]int64{delta.OutcomeSynced: 18, delta.OutcomeFailed: 2}, steps[0].Attempts)
	require.Less(t, steps[0].P50, time.Millisecond)
	require.Greater(t, steps[0].P95, 512*time.Millisecond, "two of 20 calls took that long; a mean over minutes would differ")
	require.Equal(t, map[delta.Outcome]int64{delta.OutcomeSynced: 5}, steps[1].Attempts)

	all, err := c.FigureSteps(t.Context(), "", since, 4*time.Hour)
	require.NoError(t, err)
	require.Len(t, all, 2)
	sums := map[string]int64{}
	for _, one := range all {
		sums[one.Kind] = one.Attempts[delta.OutcomeSynced]
	}
	require.Equal(t, map[string]int64{"account": 30, "other": 1}, sums)

	for _, wrong := range []time.Duration{0, time.Second, 90 * time.Second, -time.Minute} {
		_, err := c.FigureSteps(t.Context(), "", since, wrong)
		require.ErrorAs(t, err, new(*delta.InputError), fmt.Sprint(wrong))
	}
	_, err = c.FigureSteps(t.Context(), "", time.Time{}, time.Minute)
	require.ErrorAs(t, err, new(*delta.InputError))
}

// furnished is a kind with many settings.
type furnished struct{ account }

func (furnished) Kind() string { return "furnished" }
func (furnished) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, RateLimit: 2.5, RetryPolicy: delta.RetryPolicy{InitialInterval: 1500 * time.Millisecond}}
}

func TestSettingsOfAKindSayWhereTheyComeFrom(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[furnished]{}))
	config.Kinds = map[string]delta.ObjectSettings{"furnished": {Parallelism: 9, RetryPolicy: delta.RetryPolicy{MaximumInterval: time.Hour}}}
	config.ResourceInformInterval = 90 * time.Minute
	c := h.client(config)
	all, err := c.KindSettings("furnished")
	require.NoError(t, err)
	by := map[string]delta.Setting{}
	for _, s := range all {
		by[s.Name] = s
	}
	for _, want := range []delta.Setting{
		{"Parallelism", "9", delta.SettingOfConfig},
		{"RateLimit", "2.5", delta.SettingOfKind},
		{"RetryPolicy.InitialInterval", "1.5s", delta.SettingOfKind},
		{"RetryPolicy.MaximumInterval", "1h", delta.SettingOfConfig},
		{"RetryPolicy.BackoffCoefficient", "3", delta.SettingOfDefault},
		{"InformInterval", "1h30m", delta.SettingOfClient},
		{"InformSchedule", "-", delta.SettingOfDefault},
		{"HeartbeatTimeout", "10s", delta.SettingOfDefault},
		{"Log", "false", delta.SettingOfDefault},
	} {
		require.Equal(t, want, by[want.Name])
	}
	_, err = c.KindSettings("nobody")
	require.ErrorIs(t, err, delta.ErrNotFound)
}
