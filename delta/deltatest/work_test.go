package deltatest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// parcel is an object of a controller that is made of functions.
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

// parcels has a Finalizer only where it is wrapped in finalized, a BatchWorker only in batched.
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

// returns is a controller whose Work returns an error.
func returns(err error) *parcels {
	return &parcels{work: func(context.Context, *delta.Resource[parcel]) error { return err }}
}

func TestWorkTellsWhatDeltaWouldMakeOfIt(t *testing.T) {
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
		"nil is synced":                    {controller: returns(nil), state: deltatype.ResourceStateSynced, attempt: 1},
		"an error is tried again":          {controller: returns(errBoom), state: deltatype.ResourceStateFailed, attempt: 1, failure: "boom", next: time.Hour},
		"the third waits for longer":       {controller: returns(errBoom), opts: deltatest.WorkOpts{Attempt: 3}, state: deltatype.ResourceStateFailed, attempt: 3, failure: "boom", next: 9 * time.Hour},
		"but not for longer than the most": {controller: returns(errBoom), opts: deltatest.WorkOpts{Attempt: 9}, state: deltatype.ResourceStateFailed, attempt: 9, failure: "boom", next: 20 * time.Hour},
		"the last one degrades":            {controller: returns(errBoom), opts: deltatest.WorkOpts{Attempt: 10}, state: deltatype.ResourceStateDegraded, cause: deltatype.CauseExhausted, attempt: 10, failure: "boom", next: time.Hour},
		"the only one degrades":            {controller: returns(errBoom), opts: deltatest.WorkOpts{Inform: &delta.InformOpts{MaxAttempts: 1}}, state: deltatype.ResourceStateDegraded, cause: deltatype.CauseExhausted, attempt: 1, failure: "boom", next: time.Hour},
		"the last one syncs":               {controller: returns(nil), opts: deltatest.WorkOpts{Attempt: 10}, state: deltatype.ResourceStateSynced, attempt: 10},
		"the last one is snoozed":          {controller: returns(delta.ResourceSnooze(time.Minute)), opts: deltatest.WorkOpts{Attempt: 10}, state: deltatype.ResourceStateScheduled, attempt: 9, failure: "resource snoozed for 1m0s", uncounted: true, snoozed: time.Minute, next: time.Minute},
		"a snooze":                         {controller: returns(delta.ResourceSnooze(time.Minute)), state: deltatype.ResourceStateScheduled, failure: "resource snoozed for 1m0s", uncounted: true, snoozed: time.Minute, next: time.Minute},
		"a snooze of the kind":             {controller: returns(delta.SnoozeKind(time.Minute)), state: deltatype.ResourceStateScheduled, failure: "kind snoozed for 1m0s", uncounted: true, snoozed: time.Minute, scope: delta.SnoozesKind, next: time.Minute},
		"a snooze of the namespace":        {controller: returns(delta.SnoozeNamespace(time.Minute)), state: deltatype.ResourceStateScheduled, failure: "namespace snoozed for 1m0s", uncounted: true, snoozed: time.Minute, scope: delta.SnoozesNamespace, next: time.Minute},
		"a degrade":                        {controller: returns(delta.ResourceDegrade(errBoom)), state: deltatype.ResourceStateDegraded, cause: deltatype.CauseHopeless, attempt: 1, failure: "resource degraded: boom"},
		"a delete":                         {controller: returns(fmt.Errorf("sorry: %w", delta.ResourceDelete(errBoom))), state: deltatype.ResourceStateDeleted, cause: deltatype.CauseWork, attempt: 1, failure: "sorry: resource deleted: boom"},
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

func TestWorkIsGivenTheResourceOfTheAttempt(t *testing.T) {
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
	_, err = deltatest.Work(ended, returns(nil), parcel{Number: "1"}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWhatBreaksARuleIsRefusedBeforeWork(t *testing.T) {
	t.Parallel()
	controller := &parcels{work: func(context.Context, *delta.Resource[parcel]) error { t.Error("Work is called"); return nil }}
	for name, c := range map[string]struct {
		object parcel
		opts   deltatest.WorkOpts
		says   string
	}{
		"an id":                 {object: parcel{Number: "a\nb"}, says: `deltatest: work: kind parcel: object id "a\nb": must have no control characters`},
		"no id":                 {says: `object id "": must not be empty`},
		"JSON":                  {object: parcel{Number: "1", Any: func() {}}, says: "the object does not marshal to JSON"},
		"a NUL":                 {object: parcel{Number: "1", Any: "\x00"}, says: "must have no NUL character"},
		"a namespace":           {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Inform: &delta.InformOpts{Namespace: "a/b"}}, says: `parcel/1: namespace "a/b": must be letters`},
		"a tag":                 {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Inform: &delta.InformOpts{Tags: []string{"x"}}}, says: `tags[0] "x"`},
		"an attempt too many":   {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Attempt: 11}, says: "deltatest: work: Attempt 11: must be between 1 and MaxAttempts, 10"},
		"a negative attempt":    {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Attempt: -1}, says: "Attempt -1"},
		"a generation":          {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Generation: -1}, says: "Generation -1: must be at least 1"},
		"a synced generation":   {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Generation: 2, SyncedGeneration: 2}, says: "SyncedGeneration 2: must be between 0 and 1"},
		"a count":               {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{SyncCount: -1}, says: "SyncCount -1"},
		"snoozes":               {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Snoozes: -1}, says: "Snoozes -1"},
		"a cause":               {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Cause: "whim"}, says: "Cause whim: must be one of"},
		"a version":             {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Stored: &deltatest.Stored{Version: -1}}, says: "Stored.Version -1"},
		"no JSON that is there": {object: parcel{Number: "1"}, opts: deltatest.WorkOpts{Stored: &deltatest.Stored{Object: []byte("{")}}, says: `Stored.Object "{": must be JSON`},
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

// weighed is of version 2: version 1 had its weight in kilograms.
type weighed struct {
	Number string
	Grams  int
}

func (w weighed) ID() string   { return w.Number }
func (w weighed) Kind() string { return "weighed" }
func (w weighed) Version() int { return 2 }

type scales struct {
	delta.WorkerDefaults[weighed]
	delta.NoInformer[weighed]
}

func (*scales) Work(_ context.Context, r *delta.Resource[weighed]) error {
	if r.Object.Grams != 3000 {
		return fmt.Errorf("%d grams", r.Object.Grams)
	}
	return nil
}

func (*scales) Upgrade(version int, object []byte) ([]byte, error) {
	if version != 1 {
		return nil, fmt.Errorf("there was no version %d", version)
	}
	var old struct {
		Number    string
		Kilograms int
	}
	if err := json.Unmarshal(object, &old); err != nil {
		return nil, err
	}
	return json.Marshal(weighed{old.Number, old.Kilograms * 1000})
}

func TestWorkIsGivenWhatAnOlderTypeHasStored(t *testing.T) {
	t.Parallel()
	work := func(stored *deltatest.Stored) *deltatest.Outcome[weighed] {
		o, err := deltatest.Work(t.Context(), &scales{}, weighed{Number: "1", Grams: 3000}, &deltatest.WorkOpts{Stored: stored, Attempt: 2, Now: noon})
		require.NoError(t, err)
		return o
	}
	o := work(nil)
	require.Equal(t, deltatype.ResourceStateSynced, o.State)
	require.Equal(t, 2, o.Row.ObjectVersion)

	o = work(&deltatest.Stored{Version: 1, Object: []byte(`{"Number":"1","Kilograms":3}`)})
	require.Equal(t, deltatype.ResourceStateSynced, o.State, o.Failure)
	require.Equal(t, weighed{"1", 3000}, o.Object)

	for stored, failure := range map[*deltatest.Stored]string{
		{Object: []byte(`{"Number":"1"}`)}:                         "upgrading the stored object from version 0 to 2: there was no version 0",
		{Version: 3, Object: []byte(`{"Number":"1"}`)}:             "the stored object is of version 3 of its type, and deltatest_test.weighed here is of version 2",
		{Version: 2, Object: []byte(`{"Number":"2"}`)}:             `the stored object decodes into a deltatest_test.weighed with the id "2"`,
		{Version: 2, Object: []byte(`{"Number":"1","Grams":"x"}`)}: "the stored object does not decode into deltatest_test.weighed: json: cannot unmarshal string",
	} {
		o := work(stored)
		require.Contains(t, o.Failure, failure)
		require.False(t, o.Called)
		require.False(t, o.Counted)
		require.Equal(t, 1, o.Row.Attempt)
		require.Equal(t, deltatype.ResourceStateScheduled, o.State)
		require.Equal(t, noon.Add(time.Second), o.NextAttemptAt)
		require.Zero(t, o.Object)
	}
}

func TestFinalizeTellsWhatDeltaWouldMakeOfIt(t *testing.T) {
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
	_, err := deltatest.Finalize(t.Context(), returns(nil), parcel{Number: "1"}, nil)
	require.ErrorContains(t, err, "*deltatest_test.parcels has no Finalize, so it is never called")
	_, err = deltatest.Finalize(t.Context(), &finalizedParcels{}, parcel{Number: "1"}, &deltatest.WorkOpts{Cause: deltatype.CauseHopeless})
	require.ErrorContains(t, err, "Cause hopeless: must be one of")

	// What Work finds deleted is finalized at once, where there is a Finalizer.
	o, err := deltatest.Work(t.Context(), &finalizedParcels{parcels: *returns(delta.ResourceDelete(nil))}, parcel{Number: "1"}, &deltatest.WorkOpts{Now: noon})
	require.NoError(t, err)
	require.Equal(t, noon, o.NextAttemptAt)
	require.False(t, *o.Row.Finalized)
}

// crate is of a kind with batches.
type crate struct{ Number, Account string }

func (c crate) ID() string                     { return c.Number }
func (c crate) Kind() string                   { return "crate" }
func (c crate) Settings() delta.ObjectSettings { return delta.ObjectSettings{BatchSize: 3} }
func (c crate) InformOpts() delta.InformOpts   { return delta.InformOpts{Namespace: c.Account} }

type crates struct {
	delta.WorkerDefaults[crate]
	delta.NoInformer[crate]
	batch func(all []*delta.Resource[crate]) []error
}

func (*crates) Work(context.Context, *delta.Resource[crate]) error {
	return errors.New("Work is called")
}

func (c *crates) WorkBatch(_ context.Context, all []*delta.Resource[crate]) []error {
	return c.batch(all)
}

type batchedParcels struct{ *parcels }

func (batchedParcels) WorkBatch(context.Context, []*delta.Resource[parcel]) []error { return nil }

func TestWorkBatchTellsWhatDeltaWouldMakeOfEach(t *testing.T) {
	t.Parallel()
	three := []crate{{Number: "1"}, {Number: "2"}, {Number: "3"}}
	controller := &crates{batch: func(all []*delta.Resource[crate]) []error {
		require.Len(t, all, 3)
		return []error{nil, errBoom, delta.ResourceSnooze(time.Minute)}
	}}
	all, err := deltatest.WorkBatch(t.Context(), controller, three, &deltatest.WorkOpts{Now: noon, Attempt: 10})
	require.NoError(t, err)
	var states []deltatype.ResourceState
	for i, o := range all {
		states = append(states, o.State)
		require.Equal(t, three[i], o.Object)
	}
	require.Equal(t, []deltatype.ResourceState{deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateScheduled}, states)
	require.Equal(t, noon.Add(time.Minute), all[2].NextAttemptAt)

	for failure, batch := range map[string]func([]*delta.Resource[crate]) []error{
		"panic: ouch": func([]*delta.Resource[crate]) []error { panic("ouch") },
		"WorkBatch was given 1 resources and returned 0 results": func([]*delta.Resource[crate]) []error { return nil },
	} {
		all, err = deltatest.WorkBatch(t.Context(), &crates{batch: batch}, three[:1], nil)
		require.NoError(t, err)
		require.Equal(t, failure, all[0].Failure)
	}
	for says, objects := range map[string][]crate{
		`objects "0 objects": must be at least 1, and at most BatchSize, 3`:                               nil,
		`objects "4 objects": must be at least 1, and at most BatchSize, 3`:                               append([]crate{{Number: "0"}}, three...),
		`objects[1] "1": must have an id of its own`:                                                      {{Number: "1"}, {Number: "1"}},
		`objects[1].Namespace "us": must be that of the others, "eu": WorkBatch is called for each names`: {{Number: "1", Account: "eu"}, {Number: "2", Account: "us"}},
	} {
		_, err = deltatest.WorkBatch(t.Context(), controller, objects, nil)
		require.ErrorContains(t, err, says)
	}
	_, err = deltatest.WorkBatch(t.Context(), controller, three, &deltatest.WorkOpts{Stored: &deltatest.Stored{}})
	require.ErrorContains(t, err, "Stored 0: must not be set for WorkBatch")
	_, err = deltatest.WorkBatch(t.Context(), returns(nil), []parcel{{Number: "1"}}, nil)
	require.ErrorContains(t, err, "*deltatest_test.parcels has no WorkBatch, so it is never called")
	_, err = deltatest.WorkBatch(t.Context(), batchedParcels{returns(nil)}, []parcel{{Number: "1"}}, nil)
	require.ErrorContains(t, err, "ObjectSettings.BatchSize 0: must be above 1")
}

func TestCompleteTxDecidesByTheCommit(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	_, err := env.Pool.Exec(t.Context(), "CREATE TABLE shipped (number text)")
	require.NoError(t, err)
	// in begins the transactions of Work: a pool, or a transaction with savepoints.
	type beginner interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	}
	work := func(t *testing.T, in beginner, conn deltatest.DB, end func(context.Context, pgx.Tx) error) *deltatest.Outcome[parcel] {
		t.Helper()
		controller := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
			tx, err := in.Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(ctx) }()
			if _, err := tx.Exec(ctx, "INSERT INTO shipped VALUES ($1)", r.Object.Number); err != nil {
				return err
			}
			if err := r.CompleteTx(ctx, tx); err != nil {
				return err
			}
			return end(ctx, tx)
		}}
		o, err := deltatest.Work(t.Context(), controller, parcel{Number: "1"}, &deltatest.WorkOpts{DB: conn})
		require.NoError(t, err)
		return o
	}
	commit := func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }
	late := func(ctx context.Context, tx pgx.Tx) error { return errors.Join(tx.Commit(ctx), errBoom) }
	forget := func(context.Context, pgx.Tx) error { return nil }
	fail := func(context.Context, pgx.Tx) error { return errBoom }
	check := func(t *testing.T, in beginner, conn deltatest.DB) {
		t.Helper()
		require.Equal(t, deltatype.ResourceStateSynced, work(t, in, conn, commit).State)
		o := work(t, in, conn, late)
		require.Equal(t, deltatype.ResourceStateSynced, o.State, "the error came too late")
		require.NoError(t, o.Err)
		o = work(t, in, conn, forget)
		require.Equal(t, deltatype.ResourceStateFailed, o.State)
		require.Equal(t, "Work returned nil after CompleteTx, but the transaction was not committed", o.Failure)
		require.Equal(t, "boom", work(t, in, conn, fail).Failure)
	}
	check(t, env.Pool, env.Pool)

	outer, err := env.Pool.Begin(t.Context())
	require.NoError(t, err)
	check(t, outer, outer)
	var n int
	require.NoError(t, outer.QueryRow(t.Context(), "SELECT count(*) FROM shipped").Scan(&n))
	require.Equal(t, 4, n)
	require.NoError(t, outer.Rollback(t.Context()))
	require.NoError(t, env.Pool.QueryRow(t.Context(), "SELECT count(*) FROM shipped").Scan(&n))
	require.Equal(t, 2, n, "it is the user's own transaction")

	o := work(t, env.Pool, nil, commit)
	require.Equal(t, deltatype.ResourceStateFailed, o.State)
	require.Contains(t, o.Failure, "this is a rehearsal without a database: name the one in which Work begins its transactions")
	// Nothing is silent where Work ignores the error, either.
	ignores := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		_ = r.CompleteTx(ctx, outer)
		return nil
	}}
	o, err = deltatest.Work(t.Context(), ignores, parcel{Number: "1"}, nil)
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateFailed, o.State)

	// A database that cannot be asked is an error, and no outcome.
	closed, err := pgx.Connect(t.Context(), env.DatabaseURL)
	require.NoError(t, err)
	commits := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		return pgx.BeginFunc(ctx, closed, func(tx pgx.Tx) error { return r.CompleteTx(ctx, tx) })
	}}
	breaks := &parcels{work: func(ctx context.Context, r *delta.Resource[parcel]) error {
		err := commits.work(ctx, r)
		_ = closed.Close(ctx)
		return err
	}}
	_, err = deltatest.Work(t.Context(), breaks, parcel{Number: "1"}, &deltatest.WorkOpts{DB: closed})
	require.ErrorContains(t, err, "asking WorkOpts.DB whether the transaction of CompleteTx was committed")
}
