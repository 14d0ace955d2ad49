package deltatest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// parcel is an object, and parcels is its controller, whose methods are functions of the test.
type parcel struct {
	Number string
	Weight float64
	Any    any `json:",omitempty"`
}

func (p parcel) ID() string   { return p.Number }
func (p parcel) Kind() string { return "parcel" }

func (p parcel) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{RetryPolicy: delta.RetryPolicy{InitialInterval: time.Hour, BackoffCoefficient: 3, MaximumInterval: 20 * time.Hour}}
}

// parcels has a Finalizer only within finalizedParcels, and a WorkBatch only within batchedParcels.
type parcels struct {
	delta.NoInformer[parcel]
	timeout time.Duration
	work    func(ctx context.Context, r *delta.Resource[parcel]) error
}

func (c *parcels) ResourceTimeout(*delta.Resource[parcel]) time.Duration { return c.timeout }

func (c *parcels) Work(ctx context.Context, r *delta.Resource[parcel]) error { return c.work(ctx, r) }

type finalizedParcels struct {
	parcels
	finalize func(ctx context.Context, r *delta.Resource[parcel]) error
}

func (c *finalizedParcels) Finalize(ctx context.Context, r *delta.Resource[parcel]) error {
	return c.finalize(ctx, r)
}

var (
	errBoom = errors.New("boom")
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// newReturning returns a controller whose Work returns err.
func newReturning(err error) *parcels {
	return &parcels{work: func(context.Context, *delta.Resource[parcel]) error { return err }}
}

func TestWorkReturnsTheOutcomeOfAnAttempt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		controller *parcels
		opts       deltatest.WorkOpts
		state      deltatype.ResourceState
		cause      deltatype.Cause
		attempt    int
		failure    string
		uncounted  bool
		snoozed    time.Duration
		scope      delta.SnoozeScope
		next       time.Duration
	}{
		"nil is synced":               {controller: newReturning(nil), state: deltatype.ResourceStateSynced, attempt: 1},
		"an error is retried":         {controller: newReturning(errBoom), state: deltatype.ResourceStateFailed, attempt: 1, failure: "boom", next: time.Hour},
		"the third waits for longer":  {controller: newReturning(errBoom), opts: deltatest.WorkOpts{Attempt: 3}, state: deltatype.ResourceStateFailed, attempt: 3, failure: "boom", next: 9 * time.Hour},
		"but at most MaximumInterval": {controller: newReturning(errBoom), opts: deltatest.WorkOpts{Attempt: 9}, state: deltatype.ResourceStateFailed, attempt: 9, failure: "boom", next: 20 * time.Hour},
		"the last one degrades":       {controller: newReturning(errBoom), opts: deltatest.WorkOpts{Attempt: 10}, state: deltatype.ResourceStateDegraded, cause: deltatype.CauseExhausted, attempt: 10, failure: "boom", next: time.Hour},
		"the only one degrades":       {controller: newReturning(errBoom), opts: deltatest.WorkOpts{Inform: &delta.InformOpts{MaxAttempts: 1}}, state: deltatype.ResourceStateDegraded, cause: deltatype.CauseExhausted, attempt: 1, failure: "boom", next: time.Hour},
		"the last one syncs":          {controller: newReturning(nil), opts: deltatest.WorkOpts{Attempt: 10}, state: deltatype.ResourceStateSynced, attempt: 10},
		"the last one is snoozed":     {controller: newReturning(delta.ResourceSnooze(time.Minute)), opts: deltatest.WorkOpts{Attempt: 10}, state: deltatype.ResourceStateScheduled, attempt: 9, failure: "resource snoozed for 1m0s", uncounted: true, snoozed: time.Minute, next: time.Minute},
		"a snooze":                    {controller: newReturning(delta.ResourceSnooze(time.Minute)), state: deltatype.ResourceStateScheduled, failure: "resource snoozed for 1m0s", uncounted: true, snoozed: time.Minute, next: time.Minute},
		"a snooze of the kind":        {controller: newReturning(delta.SnoozeKind(time.Minute)), state: deltatype.ResourceStateScheduled, failure: "kind snoozed for 1m0s", uncounted: true, snoozed: time.Minute, scope: delta.SnoozesKind, next: time.Minute},
		"a snooze of the namespace":   {controller: newReturning(delta.SnoozeNamespace(time.Minute)), state: deltatype.ResourceStateScheduled, failure: "namespace snoozed for 1m0s", uncounted: true, snoozed: time.Minute, scope: delta.SnoozesNamespace, next: time.Minute},
		"a degrade":                   {controller: newReturning(delta.ResourceDegrade(errBoom)), state: deltatype.ResourceStateDegraded, cause: deltatype.CauseHopeless, attempt: 1, failure: "resource degraded: boom"},
		"a delete":                    {controller: newReturning(fmt.Errorf("sorry: %w", delta.ResourceDelete(errBoom))), state: deltatype.ResourceStateDeleted, cause: deltatype.CauseWork, attempt: 1, failure: "sorry: resource deleted: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.opts.Now = noon
			o, err := deltatest.Work(t.Context(), c.controller, parcel{Number: "1"}, &c.opts)
			require.NoError(t, err)
			require.Equal(t, c.state, o.State)
			require.Equal(t, c.cause, o.Cause)
			require.Equal(t, c.attempt, o.Row.Attempt)
			require.Equal(t, c.failure, o.Failure)
			require.Equal(t, !c.uncounted, o.Counted)
			require.Equal(t, c.snoozed, o.SnoozedFor)
			require.Equal(t, c.scope, o.SnoozeScope)
			require.True(t, o.Called)
			if c.next == 0 {
				require.Zero(t, o.NextAttemptAt)
			} else {
				require.Equal(t, noon.Add(c.next), o.NextAttemptAt)
			}
			require.Equal(t, c.controller.work(nil, nil), o.Err, "the error itself")
			require.Equal(t, c.state, o.Row.State)
		})
	}
}

func TestWorkGetsTheResourceOfTheAttempt(t *testing.T) {
	t.Parallel()
	var keys []string
	var got *deltatype.ResourceRow
	controller := &parcels{work: func(_ context.Context, r *delta.Resource[parcel]) error {
		row := *r.ResourceRow
		keys, got = append(keys, r.IdempotencyKey()), &row
		require.IsType(t, json.Number(""), r.Object.Any, "the object has gone through Delta's own decoder")
		r.State = "changed" // has no effect
		return nil
	}}
	earlier := []deltatype.AttemptError{{At: noon.Add(-time.Hour), Attempt: 3, Error: "earlier"}}
	object := parcel{Number: "1", Weight: 1.5, Any: 12345678901234567890.0}
	opts := &deltatest.WorkOpts{
		Inform:  &delta.InformOpts{Namespace: "eu", Metadata: []byte(`{"a":1}`), MaxAttempts: 5, Priority: 4, Tags: []string{"red"}},
		Attempt: 4, Generation: 3, SyncedGeneration: 2, SyncCount: 2, Snoozes: 7, Errors: earlier, Now: noon,
	}
	o, err := deltatest.Work(t.Context(), controller, object, opts)
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStatePending, got.State)
	require.Equal(t, "eu", got.Namespace)
	require.JSONEq(t, `{"a":1}`, string(got.Metadata))
	require.Equal(t, []string{"red"}, got.Tags)
	require.Equal(t, []int{4, 5, 4, 7}, []int{got.Attempt, got.MaxAttempts, got.Priority, got.Snoozes})
	require.Equal(t, []int64{3, 2, 2}, []int64{got.Generation, got.SyncedGeneration, got.SyncCount})
	require.Equal(t, earlier, got.Errors)
	require.Equal(t, noon, *got.AttemptedAt)
	require.NotNil(t, got.SyncedAt)

	require.Equal(t, []int64{3, 3, 3}, []int64{o.Row.Generation, o.Row.SyncedGeneration, o.Row.SyncCount})
	require.Equal(t, noon, *o.Row.SyncedAt)
	require.Equal(t, deltatype.ResourceStateSynced, o.State)
	require.InDelta(t, 1.5, o.Object.Weight, 0)

	opts.Attempt, opts.Now = 5, noon.Add(time.Hour)
	_, err = deltatest.Work(t.Context(), controller, object, opts)
	require.NoError(t, err)
	opts.Generation = 4
	_, err = deltatest.Work(t.Context(), controller, object, opts)
	require.NoError(t, err)
	require.Equal(t, keys[0], keys[1], "of another attempt")
	require.NotEqual(t, keys[1], keys[2], "of another generation")
}

func TestPanicsAndTimeoutsAreOutcomes(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, c := range map[string]struct {
		timeout time.Duration
		work    func(ctx context.Context, r *delta.Resource[parcel]) error
		failure string
		trace   bool
	}{
		"a panic": {work: func(context.Context, *delta.Resource[parcel]) error { panic("ouch") }, failure: "panic: ouch", trace: true},
		"the end of its goroutine": {
			work:    func(context.Context, *delta.Resource[parcel]) error { runtime.Goexit(); return nil },
			failure: "Work ended its goroutine (runtime.Goexit)",
		},
		"no client": {
			work:    func(ctx context.Context, _ *delta.Resource[parcel]) error { delta.ClientFromContext(ctx); return nil },
			failure: "panic: delta: no client in the context: it is only in those that Work and Inform are given", trace: true,
		},
		"a timeout": {
			timeout: time.Millisecond,
			work:    func(ctx context.Context, _ *delta.Resource[parcel]) error { <-ctx.Done(); return context.Cause(ctx) },
			failure: "timed out after 1ms: context deadline exceeded",
		},
		"a timeout that is ignored": {
			timeout: time.Millisecond,
			work:    func(context.Context, *delta.Resource[parcel]) error { <-t.Context().Done(); return nil },
			failure: "timed out after 1ms: Work did not return within 3s of the end of its context",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, err := deltatest.Work(t.Context(), &parcels{timeout: c.timeout, work: c.work}, parcel{Number: "1"}, &deltatest.WorkOpts{Now: noon})
			require.NoError(t, err)
			require.Equal(t, deltatype.ResourceStateFailed, o.State)
			require.Equal(t, c.failure, o.Failure)
			require.Equal(t, c.trace, o.Trace != "")
			require.Equal(t, noon.Add(time.Hour), o.NextAttemptAt)
			require.Equal(t, []deltatype.AttemptError{{At: noon, Attempt: 1, Error: c.failure, Trace: o.Trace}}, o.Row.Errors)
		})
	}
	ended, end := context.WithCancel(t.Context())
	o, err := deltatest.Work(ended, &parcels{work: func(ctx context.Context, _ *delta.Resource[parcel]) error { end(); <-ctx.Done(); return ctx.Err() }}, parcel{Number: "1"}, nil)
	require.NoError(t, err)
	require.Equal(t, "stopped: context canceled", o.Failure, "as after a hard stop")
	_, err = deltatest.Work(ended, newReturning(nil), parcel{Number: "1"}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestInvalidInputIsRefusedBeforeWork(t *testing.T) {
	t.Parallel()
	controller := &parcels{work: func(context.Context, *delta.Resource[parcel]) error { t.Error("Work is called"); return nil }}
	for name, c := range map[string]struct {
		object parcel
		opts   deltatest.WorkOpts
		says   string
	}{
		"an id":                   {object: parcel{Number: "a\nb"}, says: `deltatest: work: kind parcel: object id "a\nb": must have no control characters`},
		"no id":                   {says: `object id "": must not be empty`},
		"JSON":                    {object: parcel{Number: "1", Any: func() {}}, says: "the object does not marshal to JSON"},
		"a NUL":                   {object: parcel{Number: "1", Any: "\x00"}, says: "must have no NUL character"},
		"a namespace":             {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Inform: &delta.InformOpts{Namespace: "a/b"}}, says: `parcel/1: namespace "a/b": must be letters`},
		"a tag":                   {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Inform: &delta.InformOpts{Tags: []string{"x"}}}, says: `tags[0] "x"`},
		"an attempt too many":     {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Attempt: 11}, says: "deltatest: work: Attempt 11: must be between 1 and MaxAttempts, 10"},
		"a negative attempt":      {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Attempt: -1}, says: "Attempt -1"},
		"a generation":            {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Generation: -1}, says: "Generation -1: must be at least 1"},
		"a synced generation":     {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Generation: 2, SyncedGeneration: 2}, says: "SyncedGeneration 2: must be between 0 and 1"},
		"a count":                 {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{SyncCount: -1}, says: "SyncCount -1"},
		"snoozes":                 {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Snoozes: -1}, says: "Snoozes -1"},
		"a cause":                 {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Cause: "whim"}, says: "Cause whim: must be one of"},
		"a version":               {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Stored: &deltatest.Stored{Version: -1}}, says: "Stored.Version -1"},
		"stored text is not JSON": {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Stored: &deltatest.Stored{Object: []byte("{")}}, says: `Stored.Object "{": must be JSON`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, err := deltatest.Work(t.Context(), controller, c.object, &c.opts)
			require.ErrorContains(t, err, c.says)
			require.Nil(t, o)
			if c.object.Any == nil {
				require.ErrorAs(t, err, new(*delta.InputError))
			}
		})
	}
	_, err := deltatest.Work(t.Context(), (*parcels)(nil), parcel{Number: "1"}, nil)
	require.ErrorContains(t, err, "the controller for deltatest_test.parcel is nil")
	_, err = deltatest.Work(t.Context(), &lostIDs{}, lostID{number: "1"}, nil)
	require.ErrorContains(t, err, "must be the same after a round trip through JSON")
}

type lostID struct{ number string }

func (o lostID) ID() string   { return o.number }
func (o lostID) Kind() string { return "lost" }

type lostIDs struct {
	delta.WorkerDefaults[lostID]
	delta.NoInformer[lostID]
}

func (*lostIDs) Work(context.Context, *delta.Resource[lostID]) error { return nil }
