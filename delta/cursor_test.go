package delta_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// paged is a kind with its own cursor.
type paged struct{ account }

func (paged) Kind() string { return "paged" }
func (paged) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1}
}

func TestAnInformerKeepsItsOwnCursor(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var log logs
	var given, next, failure string
	var pass context.Context
	config := h.config(addTo[paged](&yields[paged]{list: func(ctx context.Context, o *delta.InformOptions, yield func(paged, error) bool) {
		given, pass = o.Cursor, ctx
		delta.SetCursor(ctx, "overwritten")
		delta.SetCursor(ctx, next)
		if failure != "" {
			yield(paged{}, errors.New(failure))
		}
	}}))
	config.Logger = log.logger()
	c := h.start(config)
	params := delta.ScheduleInformParams{ResourceKind: "paged"}
	run := func(o *delta.InformOptions) {
		_, err := c.RunInform(t.Context(), params, o)
		require.NoError(t, err)
	}
	next = "page 2"
	run(nil)
	require.Empty(t, given)
	next = "page 3"
	run(nil)
	require.Equal(t, "page 2", given)

	next = "of a pass that fails"
	failure = "down"
	h.failsOnce(c, params)
	failure = ""
	next = "of a pass that was narrowed"
	run(&delta.InformOptions{Limit: 1})
	require.Equal(t, "page 3", given, "a pass that failed moves nothing")
	run(&delta.InformOptions{Cursor: "another"})
	require.Equal(t, "another", given)
	next = "page 4"
	run(nil)
	require.Equal(t, "page 3", given, "nor does one that was narrowed")

	params.FullListing = true
	run(nil)
	require.Empty(t, given)
	params.FullListing = false
	for _, bad := range []string{"a\x00b", "\xff", strings.Repeat("x", 64<<10+1)} {
		next = bad
		h.failsOnce(c, params)
		require.Equal(t, "page 4", given)
	}

	delta.SetCursor(pass, "afterwards")
	require.True(t, log.has(`level=ERROR msg="delta.SetCursor came too late`) && log.has("kind=paged"))
	for field, o := range map[string]*delta.InformOptions{"Cursor": {Cursor: "x"}, "After": {After: new(time.Time)}} {
		var input *delta.InputError
		_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "paged", FullListing: true}, o)
		require.ErrorAs(t, err, &input)
		require.Equal(t, field, input.Field)
	}
}

// both is listed incrementally, with full listings from time to time.
type both struct{ mirror }

func (both) Kind() string { return "both" }
func (both) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: 24 * time.Hour, FullListingInterval: 48 * time.Hour}
}

func (b both) Compare(delta.Object) (int, bool) { return 0, false }

func TestFullListingsRunBesideIncrementalOnes(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	var gone, incremental, full atomic.Int64
	controller := &yields[both]{list: func(_ context.Context, o *delta.InformOptions, yield func(both, error) bool) {
		if o.After != nil {
			incremental.Add(1)
			return
		}
		full.Add(1)
		for _, m := range newMirrors(10 - int(gone.Load())) {
			yield(both{m}, nil)
		}
	}}
	c := h.start(h.config(addTo[both](controller)))
	until(t, func() bool { return h.readCursor("both").Unix() > 0 })
	for _, m := range newMirrors(10) {
		h.eventually("both", m.Name, synced(1))
	}
	gone.Store(2)
	run, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "both"}, nil)
	require.NoError(t, err)
	require.Zero(t, run.Deleted)
	require.Positive(t, incremental.Load())
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 10}, h.countStates("both"))

	schedule := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform-full:both")
	found, err := schedule.Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 48*time.Hour, found.Schedule.Spec.Intervals[0].Every)
	require.EqualValues(t, 1, full.Load(), "the first pass has no cursor")
	h.triggerSchedule("inform-full:both")
	until(t, func() bool { return h.countStates("both")["deleted"] == 2 })
	require.Equal(t, map[deltatype.ResourceState]int{"synced": 8, "deleted": 2}, h.countStates("both"))
	until(t, func() bool {
		kinds, err := c.Kinds(t.Context())
		require.NoError(t, err)
		return kinds[0].LastFullListing != nil && kinds[0].FullListingInterval == 48*time.Hour
	})

	require.NoError(t, c.PauseInformer(t.Context(), "both"))
	found, err = schedule.Describe(t.Context())
	require.NoError(t, err)
	require.True(t, found.Schedule.State.Paused)
	require.NoError(t, c.ResumeInformer(t.Context(), "both"))
	found, err = schedule.Describe(t.Context())
	require.NoError(t, err)
	require.False(t, found.Schedule.State.Paused)
	require.NoError(t, c.Stop(t.Context()))

	// Without the setting there is no such schedule.
	h.start(h.config(addTo[bothOff](&yields[bothOff]{list: func(context.Context, *delta.InformOptions, func(bothOff, error) bool) {}})))
	_, err = schedule.Describe(t.Context())
	require.ErrorAs(t, err, new(*serviceerror.NotFound))
}

// bothOff is both, without full listings.
type bothOff struct{ both }

func (bothOff) Settings() delta.ObjectSettings { return delta.ObjectSettings{InformInterval: -1} }
