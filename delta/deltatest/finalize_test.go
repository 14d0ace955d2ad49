package deltatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestFinalizeReturnsTheOutcomeOfAnAttempt(t *testing.T) {
	t.Parallel()
	finalize := func(opts deltatest.WorkOpts, err error) *deltatest.Outcome[parcel] {
		controller := &finalizedParcels{finalize: func(_ context.Context, r *delta.Resource[parcel]) error {
			require.Equal(t, deltatype.ResourceStateDeleted, r.State)
			require.Equal(t, opts.Cause, r.Cause)
			return err
		}}
		opts.Now = noon
		o, failed := deltatest.Finalize(t.Context(), controller, parcel{Number: "1"}, &opts)
		require.NoError(t, failed)
		require.Equal(t, deltatype.ResourceStateDeleted, o.State)
		return o
	}
	unlisted := deltatest.WorkOpts{Cause: deltatype.CauseUnlisted}
	require.True(t, finalize(unlisted, nil).Finalized)
	require.True(t, finalize(unlisted, delta.ResourceDelete(errBoom)).Finalized)
	for attempt, c := range map[int]struct {
		err  error
		next time.Duration
	}{1: {errBoom, time.Hour}, 2: {errBoom, 3 * time.Hour}, 10: {errBoom, time.Hour}, 3: {delta.ResourceDegrade(errBoom), time.Hour}, 4: {delta.ResourceSnooze(time.Minute), time.Minute}} {
		o := finalize(deltatest.WorkOpts{Cause: deltatype.CauseWork, Attempt: attempt, SyncedGeneration: 1}, c.err)
		require.False(t, o.Finalized)
		require.Equal(t, deltatype.CauseWork, o.Cause)
		require.Equal(t, noon.Add(c.next), o.NextAttemptAt, "attempt %d", attempt)
	}
	_, err := deltatest.Finalize(t.Context(), newReturning(nil), parcel{Number: "1"}, nil)
	require.ErrorContains(t, err, "*deltatest_test.parcels has no Finalize, so it is never called")
	_, err = deltatest.Finalize(t.Context(), &finalizedParcels{}, parcel{Number: "1"}, &deltatest.WorkOpts{Cause: deltatype.CauseHopeless})
	require.ErrorContains(t, err, "Cause hopeless: must be one of")

	// An object that Work finds deleted is finalized at once if there is a Finalizer.
	o, err := deltatest.Work(t.Context(), &finalizedParcels{parcels: *newReturning(delta.ResourceDelete(nil))}, parcel{Number: "1"}, &deltatest.WorkOpts{Now: noon})
	require.NoError(t, err)
	require.Equal(t, noon, o.NextAttemptAt)
	require.False(t, *o.Row.Finalized)
}
