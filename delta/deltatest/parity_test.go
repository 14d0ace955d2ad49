package deltatest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// patience bounds each wait for an event that must happen.
const patience = 2 * time.Minute

// workByNumber returns the outcome that the object's id names.
func workByNumber(_ context.Context, r *delta.Resource[parcel]) error {
	switch r.Object.Number {
	case "synced":
		return nil
	case "panics":
		panic("ouch")
	case "snoozed":
		return delta.ResourceSnooze(time.Hour)
	case "hopeless":
		return delta.ResourceDegrade(errBoom)
	case "gone", "gone, not finalized":
		return delta.ResourceDelete(errBoom)
	}
	return errBoom
}

// The outcomes of Work and Finalize match those of Delta itself with the same object and controller.
func TestARehearsalHasTheOutcomeOfDelta(t *testing.T) {
	t.Parallel()
	for name, controller := range map[string]delta.Controller[parcel]{
		"with a Finalizer": &finalizedParcels{parcels: parcels{work: workByNumber}, finalize: func(_ context.Context, r *delta.Resource[parcel]) error {
			if r.Object.Number == "gone, not finalized" {
				return errBoom
			}
			return nil
		}},
		"without": &parcels{work: workByNumber},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compareWithDelta(t, controller)
		})
	}
}

func compareWithDelta(t *testing.T, controller delta.Controller[parcel]) {
	env := deltatest.New(t)
	controllers := delta.NewControllers()
	delta.AddController(controllers, controller)
	client, err := delta.NewClient(env.Pool, &delta.Config{Controllers: controllers, Temporal: env.Temporal, WorkflowIDPrefix: env.Prefix})
	require.NoError(t, err)
	require.NoError(t, client.Start(t.Context()))
	t.Cleanup(func() { _ = client.Stop(context.Background()) })

	for id, opts := range map[string]*delta.InformOpts{
		"synced": nil, "panics": nil, "snoozed": {Namespace: "eu"}, "hopeless": nil, "gone": nil, "gone, not finalized": nil, "fails": {Tags: []string{"red"}},
		"exhausted": {MaxAttempts: 1, Priority: 4, Metadata: []byte(`{"a": 1}`)},
	} {
		object := parcel{Number: id, Weight: 2}
		_, err := client.Inform(t.Context(), object, opts)
		require.NoError(t, err)
		told := rehearse(t, controller, object, &deltatest.WorkOpts{Inform: opts})

		var real *deltatype.ResourceRow
		require.Eventually(t, func() bool {
			real, err = client.Get(t.Context(), "parcel", id)
			return err == nil && real.State == told.State && real.ClaimedUntil == nil && real.AttemptedAt != nil &&
				(told.Row.Finalized == nil || (real.Finalized != nil && *real.Finalized == *told.Row.Finalized && real.Attempt == told.Row.Attempt))
		}, patience, 20*time.Millisecond, "%s: the expected row is %+v", id, told.Row)
		var now time.Time
		require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT now()").Scan(&now))
		requireSame(t, id, real, told, now)
	}
}

// rehearse makes the same attempts as Delta until the resource waits.
func rehearse(t *testing.T, controller delta.Controller[parcel], object parcel, opts *deltatest.WorkOpts) *deltatest.Outcome[parcel] {
	t.Helper()
	opts.Now = noon
	o, err := deltatest.Work(t.Context(), controller, object, opts)
	require.NoError(t, err)
	if !o.NextAttemptAt.Equal(noon) {
		return o
	}
	require.Zero(t, o.Row.Attempt, "Finalize has its own count of attempts")
	opts.Cause, opts.SyncedGeneration, opts.Errors = o.Cause, o.Row.SyncedGeneration, o.Row.Errors
	opts.SyncCount = o.Row.SyncCount
	o, err = deltatest.Finalize(t.Context(), controller, object, opts)
	require.NoError(t, err)
	return o
}

func requireSame(t *testing.T, id string, real *deltatype.ResourceRow, told *deltatest.Outcome[parcel], now time.Time) {
	t.Helper()
	type part struct {
		state                                 deltatype.ResourceState
		cause                                 deltatype.Cause
		namespace, tags                       string
		generation, synced, count             int64
		attempt, snoozes, most, priority      int
		isFinalized, isUnfinalized, wasSynced bool
		errors                                []string
	}
	of := func(r *deltatype.ResourceRow) part {
		p := part{
			state: r.State, cause: r.Cause, namespace: r.Namespace, generation: r.Generation, synced: r.SyncedGeneration, count: r.SyncCount,
			attempt: r.Attempt, snoozes: r.Snoozes, most: r.MaxAttempts, priority: r.Priority,
			isFinalized: r.Finalized != nil && *r.Finalized, isUnfinalized: r.Finalized != nil && !*r.Finalized, wasSynced: r.SyncedAt != nil,
		}
		for _, tag := range r.Tags {
			p.tags += tag + " "
		}
		for _, e := range r.Errors {
			p.errors = append(p.errors, e.Error)
		}
		return p
	}
	require.Equal(t, of(real), of(told.Row), id)
	require.JSONEq(t, string(real.Metadata), string(told.Row.Metadata))
	require.JSONEq(t, string(real.EncodedObject), string(told.Row.EncodedObject))
	require.Equal(t, real.Hash, told.Row.Hash)

	// NextAttemptAt has no random spread, which is a tenth at most. All three times come from one clock.
	if wait := told.NextAttemptAt.Sub(noon); !told.NextAttemptAt.IsZero() {
		require.NotNil(t, real.DueAt, id)
		require.False(t, real.DueAt.Before(real.AttemptedAt.Add(wait*9/10)), "%s is due at %s, after %s", id, real.DueAt, wait)
		require.False(t, real.DueAt.After(now.Add(wait*11/10)), "%s is due at %s, after %s", id, real.DueAt, wait)
	}
}

func TestTheConfigOfAClientAppliesToARehearsal(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	var informed string
	controller := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		// On a slow machine, the inform may take longer than the timeout of Work.
		_, err := delta.ClientFromContext(ctx).Inform(context.WithoutCancel(ctx), parcel{Number: "beside"}, nil)
		informed = r.Object.Number
		<-ctx.Done()
		return errors.Join(err, context.Cause(ctx))
	}}
	controllers := delta.NewControllers()
	delta.AddController(controllers, controller)
	client, err := delta.NewClient(env.Pool, &delta.Config{
		Controllers: controllers, ResourceWorkTimeout: time.Second,
		Kinds: map[string]delta.ObjectSettings{"parcel": {RetryPolicy: delta.RetryPolicy{InitialInterval: 7 * time.Minute}}},
	})
	require.NoError(t, err)
	o, err := deltatest.Work(t.Context(), controller, parcel{Number: "1"}, &deltatest.WorkOpts{Client: client, Now: noon})
	require.NoError(t, err)
	require.Equal(t, "1", informed)
	require.Equal(t, "timed out after 1s: context deadline exceeded", o.Failure)
	require.Equal(t, noon.Add(7*time.Minute), o.NextAttemptAt)
	deltatest.RequireInformed(t.Context(), t, env.Pool, parcel{Number: "beside"}, nil)
	deltatest.RequireNotInformed(t.Context(), t, env.Pool, parcel{Number: "1"})
}
