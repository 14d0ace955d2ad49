package delta_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
)

// kindStatus returns the status of a kind.
func (h *harness) kindStatus(c *delta.Client, kind string) delta.KindStatus {
	h.t.Helper()
	kinds, err := c.Kinds(h.t.Context())
	require.NoError(h.t, err)
	for _, k := range kinds {
		if k.Kind == kind {
			return k
		}
	}
	require.Fail(h.t, "there is no such kind", kind)
	return delta.KindStatus{}
}

// A kind without new objects for a long time is not behind, as long as its passes succeed.
func TestAQuietKindHasNoLag(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[listed]{all: []listed{{Name: "old", Made: time.Now().Add(-28 * 24 * time.Hour)}}}
	c := h.client(h.config(with(&controller[listed]{inform: outside.inform})))
	h.exec(`insert into delta_controller (name, inform_interval) values ('listed', '1 hour')`)
	status := h.kindStatus(c, "listed")
	require.Nil(t, status.LastSuccess)
	require.Zero(t, status.Lag)

	_, err := h.runPass(c, "listed", activities.InformInput{})
	require.NoError(t, err)
	status = h.kindStatus(c, "listed")
	require.Less(t, *status.LastInformTime, h.now().Add(-27*24*time.Hour), "the cursor is the latest creation")
	require.NotNil(t, status.LastSuccess)
	require.Nil(t, status.LastFailure)
	require.Zero(t, status.Lag)

	outside.fail = errBoom
	_, err = h.runPass(c, "listed", activities.InformInput{})
	require.ErrorIs(t, err, errBoom)
	failed := h.kindStatus(c, "listed")
	require.Equal(t, status.LastSuccess, failed.LastSuccess)
	require.True(t, failed.LastFailure.After(*failed.LastSuccess))
	require.Positive(t, failed.Lag)

	outside.fail = nil
	_, err = h.runPass(c, "listed", activities.InformInput{})
	require.NoError(t, err)
	require.Zero(t, h.kindStatus(c, "listed").Lag)
}

func TestAListingThatLeavesOutAPassIsBehind(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	h.exec(`insert into delta_controller (name, inform_interval, lists_nothing) values
		('late', '1 hour', false), ('slow', '1 hour', false), ('asked', '-1 second', false), ('unset', '0', false), ('nothing', '1 hour', true)`)
	h.exec(`update delta_controller set informs_since = now() - interval '1 year'`)
	h.exec(`insert into delta_shard (kind, shard, succeeded_at) values
		('late', '', now() - interval '95 minutes'), ('slow', '', now() - interval '80 minutes'),
		('asked', '', now() - interval '1 year'), ('unset', '', now() - interval '1 year'), ('nothing', '', now() - interval '1 year')`)
	require.GreaterOrEqual(t, h.kindStatus(c, "late").Lag, 95*time.Minute-time.Second)
	for _, kind := range []string{"slow", "asked", "unset", "nothing"} {
		require.Zero(t, h.kindStatus(c, kind).Lag, kind)
	}
	h.exec(`update delta_controller set inform_jitter = '50 minutes' where name = 'late'`)
	require.Zero(t, h.kindStatus(c, "late").Lag, "the run may be late by its jitter")
	h.exec(`update delta_controller set inform_jitter = '20 hours' where name = 'late'`)
	h.exec(`update delta_shard set succeeded_at = now() - interval '155 minutes' where kind = 'late'`)
	require.Positive(t, h.kindStatus(c, "late").Lag, "Temporal has no run begin after the time of the next")

	// A kind with shards has the lag of its worst current shard.
	h.exec(`insert into delta_controller (name, inform_interval) values ('sharded', '1 hour')`)
	h.exec(`insert into delta_shard (kind, shard, succeeded_at, failed_at, error, gone_at) values
		('sharded', '', now(), null, '', null), ('sharded', 'a', now() - interval '5 minutes', null, '', null),
		('sharded', 'b', now() - interval '30 minutes', now(), '503', null), ('sharded', 'gone', now() - interval '1 year', null, '', now())`)
	status := h.kindStatus(c, "sharded")
	require.GreaterOrEqual(t, status.Lag, 30*time.Minute-time.Second)
	require.Less(t, status.Lag, 24*time.Hour)
	require.Equal(t, status.Lag, status.Shards[1].Lag)
	require.Equal(t, status.Shards[1].LastSuccess, status.LastSuccess)
	require.Equal(t, status.Shards[1].LastFailure, status.LastFailure)
	require.Zero(t, status.Shards[0].Lag)
	require.Zero(t, status.Shards[2].Lag)
	h.exec(`update delta_shard set succeeded_at = null where shard = 'a'`)
	require.Nil(t, h.kindStatus(c, "sharded").LastSuccess, "one shard has never succeeded")
}

// A changed schedule has missed no runs from before the change.
func TestAListingIsNotBehindByTimesOfAnotherSchedule(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	since := func() (at time.Time) {
		require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT informs_since FROM delta_controller WHERE name = 'timed'").Scan(&at))
		return at.UTC()
	}
	long := h.now().Add(-24 * time.Hour).UTC()
	run := func(add func(*delta.Controllers), isInformer bool) {
		config := h.config(add)
		config.DisableInformers = !isInformer
		require.NoError(t, h.start(config).Stop(t.Context()))
	}
	run(with(&controller[workdays]{}), true)
	_, err := h.Pool.Exec(t.Context(), "UPDATE delta_controller SET informs_since = $1", long)
	require.NoError(t, err)
	run(with(&controller[workdays]{}), true)
	require.Equal(t, long, since(), "the same schedule")
	run(with(&controller[fraction]{}), false)
	require.Equal(t, long, since(), "a client that leaves informers to others")
	run(with(&controller[fraction]{}), true)
	require.True(t, since().After(long))
}

// A shard that comes back has missed no runs while it was gone.
func TestAShardIsToBeListedSinceItIsNamed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(inRegion, map[string][]string{"eu": names("e", 2), "us": names("u", 2)})
	c := h.client(h.config(addTo[regional](outside)))
	name := func() {
		_, err := h.runPass(c, "regional", activities.InformInput{})
		require.NoError(t, err)
	}
	ago := func(shard string) (d time.Duration) {
		require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT now() - named_at FROM delta_shard WHERE kind = 'regional' AND shard = $1", shard).Scan(&d))
		return d
	}
	name()
	h.exec(`update delta_shard set named_at = now() - interval '1 day'`)
	name()
	require.Greater(t, ago("eu"), 23*time.Hour)
	h.exec(`update delta_shard set gone_at = now() where shard = 'eu'`)
	name()
	require.Less(t, ago("eu"), 23*time.Hour)
	require.Greater(t, ago("us"), 23*time.Hour)
}
