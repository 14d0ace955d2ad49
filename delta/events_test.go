package delta_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

func nextEvent(t *testing.T, events <-chan delta.Event) delta.Event {
	t.Helper()
	select {
	case e, open := <-events:
		require.True(t, open, "the channel is closed")
		return e
	case <-time.After(patience):
		t.Fatal("no event")
		return delta.Event{}
	}
}

func TestEventsReportTheOutcomesOfTheirClient(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	c := h.startWorker(func(_ context.Context, r *delta.Resource[account]) error {
		switch {
		case r.ObjectID == "gone":
			return delta.ResourceDelete(errors.New("404"))
		case r.ObjectID == "bad" || (r.ObjectID == "shaky" && r.Attempt == 1):
			return errors.New("boom")
		}
		return nil
	})
	events, cancel := c.Subscribe(delta.EventCategoryObjectSynced, delta.EventCategoryObjectFailed)
	deletions, cancelDeletions := c.SubscribeConfig(&delta.SubscribeConfig{ChanSize: 1, Categories: []delta.EventCategory{delta.EventCategoryObjectDeleted}})
	defer cancelDeletions()

	inform := func(a account, attempts int16) {
		_, err := c.Inform(t.Context(), a, &delta.InformOpts{MaxAttempts: attempts})
		require.NoError(t, err)
	}
	inform(account{Name: "ann"}, 0)
	e := nextEvent(t, events)
	require.Equal(t, delta.EventCategoryObjectSynced, e.EventCategory)
	require.EqualValues(t, 1, e.Resource.SyncCount, "created")
	require.WithinDuration(t, time.Now(), e.Timestamp, time.Minute)
	require.Equal(t, h.row("account", "ann"), e.Resource)
	require.Positive(t, e.Duration)
	require.Positive(t, e.Wait)
	require.NoError(t, e.Err)
	inform(account{Name: "ann", Plan: "gold"}, 0)
	require.EqualValues(t, 2, nextEvent(t, events).Resource.SyncCount, "updated")

	inform(account{Name: "shaky"}, 0)
	e = nextEvent(t, events)
	require.Equal(t, delta.EventCategoryObjectFailed, e.EventCategory)
	require.Equal(t, deltatype.ResourceStateFailed, e.Resource.State)
	require.EqualError(t, e.Err, "boom")
	require.Positive(t, e.Duration)
	e = nextEvent(t, events)
	require.Equal(t, delta.EventCategoryObjectSynced, e.EventCategory)
	require.Equal(t, 2, e.Resource.Attempt)
	require.EqualValues(t, 1, e.Resource.SyncCount, "attempts are not syncs")

	inform(account{Name: "bad"}, 1)
	require.Equal(t, deltatype.ResourceStateDegraded, nextEvent(t, events).Resource.State)
	inform(account{Name: "gone"}, 0)
	require.Equal(t, "gone", nextEvent(t, deletions).Resource.ObjectID)

	cancel()
	cancel()
	_, open := <-events
	require.False(t, open)

	// A subscriber that does not read loses events, and delays nothing.
	for i := range 5 {
		inform(account{Name: "gone", Plan: fmt.Sprint(i)}, 0)
		h.eventually("account", "gone", func(r *deltatype.ResourceRow) bool {
			return r.Generation == int64(i+2) && r.State == deltatype.ResourceStateDeleted
		})
	}
	require.NoError(t, c.Stop(context.Background()))
	left := 0
	for range deletions {
		left++
	}
	require.Equal(t, 1, left, "the buffered events, and then the channel is closed")
	late, _ := c.Subscribe(delta.EventCategoryObjectSynced)
	_, open = <-late
	require.False(t, open)
}

func TestASubscriptionThatIsAMistakePanics(t *testing.T) {
	t.Parallel()
	c := newHarness(t).client(&delta.Config{})
	for _, config := range []*delta.SubscribeConfig{
		nil,
		{},
		{Categories: []delta.EventCategory{"object_seen"}},
		{ChanSize: -1, Categories: []delta.EventCategory{delta.EventCategoryObjectSynced}},
	} {
		require.Panics(t, func() { c.SubscribeConfig(config) })
	}
}

func TestSubscribersShareNothingAndSkippedInformsAreEvents(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.client(h.config())
	mine, cancel := c.Subscribe(delta.EventCategoryObjectSkipped)
	defer cancel()
	others, cancelOthers := c.Subscribe(delta.EventCategoryObjectSkipped)
	defer cancelOthers()
	for range 2 {
		_, err := c.Inform(t.Context(), account{Name: "ann"}, &delta.InformOpts{Tags: []string{"one"}, Metadata: []byte(`{"a": 1}`)})
		require.NoError(t, err)
	}
	_, err := c.InformMany(t.Context(), []delta.Object{account{Name: "ann"}, account{Name: "new"}}, nil)
	require.NoError(t, err)
	for range 2 {
		e, other := nextEvent(t, mine), nextEvent(t, others)
		require.Equal(t, "ann", e.Resource.ObjectID)
		require.Equal(t, e.Resource, other.Resource)
		e.Resource.Tags[0], e.Resource.Metadata[0], e.Resource.EncodedObject[0], e.Resource.Hash[0] = "mine", 'x', 'x', 0xFF
		*e.Resource.DueAt = time.Time{}
		require.Equal(t, []string{"one"}, other.Resource.Tags)
		require.JSONEq(t, `{"a": 1}`, string(other.Resource.Metadata))
		require.JSONEq(t, `{"name": "ann", "plan": ""}`, string(other.Resource.EncodedObject))
		require.NotZero(t, *other.Resource.DueAt)
	}
	require.Empty(t, mine)
}
