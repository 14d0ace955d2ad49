package delta_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// runPass runs a pass of a kind's informer, as its activity does.
func (h *harness) runPass(c *delta.Client, kind string, in activities.InformInput) (activities.InformProgress, error) {
	h.t.Helper()
	installation, err := db.New().GetInstallation(h.t.Context(), h.Pool)
	require.NoError(h.t, err)
	in.Installation, in.Kind = installation.ID, kind
	return c.ActivitiesOf(installation.ID, kind).InformPass(h.t.Context(), in)
}

func TestMiddlewareIsAroundListings(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := &upstream[mirror]{all: newMirrors(3)}
	var seen seenCalls
	config := h.config(with(&controller[mirror]{inform: func(ctx context.Context, o *delta.InformOptions) (<-chan mirror, error) {
		seen.add("inform within %v", ctx.Value(traceKey{}))
		return outside.inform(ctx, o)
	}}))
	config.Middleware = []delta.Middleware{func(ctx context.Context, call *delta.Call, next func(context.Context) error) error {
		seen.add("before %s of %s, %d resources, limit %d", call.Operation, call.Kind, len(call.Resources), call.Pass.Options.Limit)
		delta.Logger(ctx).Info("in a pass")
		err := next(context.WithValue(ctx, traceKey{}, "mine"))
		seen.add("after: %v", err)
		return err
	}}
	var logs logBuffer
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	c := h.client(config)
	in := activities.InformInput{Options: deltatype.InformOptions{Limit: 7}}
	progress, err := h.runPass(c, "mirror", in)
	require.NoError(t, err)
	require.Equal(t, 3, progress.Listed)
	require.Equal(t, []string{"before list of mirror, 0 resources, limit 7", "inform within mine", "after: <nil>"}, seen.seen())
	require.True(t, logs.hasLine("in a pass", "kind=mirror"))

	outside.fail = errBoom
	_, err = h.runPass(c, "mirror", in)
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, "after: "+errBoom.Error(), seen.seen()[5])
}

// A complete listing deletes omitted resources. Middleware cannot make an incomplete listing count as complete.
func TestMiddlewareMakesNoListingComplete(t *testing.T) {
	t.Parallel()
	type next = func(context.Context) error
	for name, test := range map[string]struct {
		middleware delta.Middleware
		fail       error
		says       string
	}{
		"it is not called": {func(context.Context, *delta.Call, next) error { return nil }, nil, "without calling next"},
		"its error is left out": {func(ctx context.Context, _ *delta.Call, next next) error {
			_ = next(ctx)
			return nil
		}, errBoom, errBoom.Error()},
		"an error of its own": {func(ctx context.Context, _ *delta.Call, next next) error {
			_ = next(ctx)
			return errors.New("not today")
		}, nil, "not today"},
		"it panics, and the listing fails": {func(context.Context, *delta.Call, next) error { panic("mine") }, errBoom, errBoom.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			outside := &upstream[mirror]{all: newMirrors(3)}
			informed := h.client(h.config(with(&controller[mirror]{inform: outside.inform})))
			_, err := h.runPass(informed, "mirror", activities.InformInput{Pass: "00000000-0000-0000-0000-000000000001"})
			require.NoError(t, err)
			h.exec(`update delta_resource set state = 'synced', synced_generation = 1`)
			before := h.readCursor("mirror")

			config := h.config(with(&controller[mirror]{inform: outside.inform}))
			config.Middleware = []delta.Middleware{test.middleware}
			outside.set(newMirrors(2)...)
			outside.fail = test.fail
			_, err = h.runPass(h.client(config), "mirror", activities.InformInput{Pass: "00000000-0000-0000-0000-000000000002"})
			require.ErrorContains(t, err, test.says)
			require.Equal(t, map[deltatype.ResourceState]int{"synced": 3}, h.countStates("mirror"), "nothing is deleted")
			require.Equal(t, before, h.readCursor("mirror"))
		})
	}
}

func TestMiddlewareThatMisbehavesAroundAListingHarmsNothing(t *testing.T) {
	t.Parallel()
	type next = func(context.Context) error
	var late sync.WaitGroup
	t.Cleanup(late.Wait)
	for name, middleware := range map[string]delta.Middleware{
		"panics before": func(context.Context, *delta.Call, next) error { panic("mine") },
		"panics after": func(ctx context.Context, _ *delta.Call, next next) error {
			_ = next(ctx)
			panic("mine")
		},
		"returns while the listing goes on": func(ctx context.Context, _ *delta.Call, next next) error {
			began := make(chan struct{})
			late.Go(func() {
				close(began)
				_ = next(ctx)
			})
			<-began
			return nil
		},
		"lists after its return": func(ctx context.Context, _ *delta.Call, next next) error {
			over := context.WithoutCancel(ctx)
			late.Go(func() {
				<-ctx.Done()
				_ = next(over)
			})
			return errBoom
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var logs logBuffer
			config := h.config(with(&controller[mirror]{inform: (&upstream[mirror]{all: newMirrors(3)}).inform}))
			config.Middleware = []delta.Middleware{middleware}
			config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
			progress, err := h.runPass(h.client(config), "mirror", activities.InformInput{})
			switch name {
			case "panics before", "panics after":
				require.NoError(t, err)
				require.Equal(t, 3, progress.Listed)
				require.True(t, logs.hasLine("level=ERROR", "a Middleware panicked", "operation=list", "kind=mirror"))
			case "lists after its return":
				require.ErrorIs(t, err, errBoom)
			}
		})
	}
}

func TestFailedListingsAreGivenToTheErrorHandler(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	outside := newRegions(inRegion, map[string][]string{"eu": names("e", 2), "us": names("u", 2)})
	outside.failed["eu"] = errBoom
	var logs logBuffer
	failures := make(chan delta.Failure, 100)
	config := h.config(addTo[regional](outside))
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	config.ErrorHandler = func(ctx context.Context, f delta.Failure) {
		delta.Logger(ctx).Info("handled")
		failures <- f
		panic("the handler panics too")
	}
	c := h.start(config)
	err := c.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "regional"}, nil)
	require.NoError(t, err)
	f := <-failures
	passes, err := c.InformPasses(t.Context(), "regional", "eu", 0)
	require.NoError(t, err)
	require.NotEmpty(t, passes)
	require.Equal(t, delta.OperationList, f.Operation)
	require.Equal(t, "regional", f.Kind)
	require.Equal(t, "eu", f.Shard)
	require.NotEmpty(t, f.RunID)
	require.Equal(t, passes[0].RunID, f.RunID)
	require.ErrorIs(t, f.Err, errBoom, "it is the error itself")
	require.ErrorContains(t, f.Err, "informing kind regional")
	require.Nil(t, f.Resource)
	require.False(t, f.IsPanic || f.IsDegraded)
	require.True(t, logs.hasLine("level=WARN", "a pass of the informer failed", "kind=regional", "shard=eu", "run_id="+passes[0].RunID, errBoom.Error()))
	until(t, func() bool { return logs.hasLine("level=ERROR", "the ErrorHandler panicked") })
	require.True(t, logs.hasLine("msg=handled", "kind=regional", "shard=eu", "run_id="+passes[0].RunID))

	outside.change(func() { outside.naming = errors.New("no names") })
	_, err = h.runPass(c, "regional", activities.InformInput{})
	require.ErrorContains(t, err, "no names")
	for f = <-failures; f.Shard != ""; f = <-failures { // the run is retried
	}
	require.Equal(t, delta.OperationList, f.Operation)
	require.ErrorContains(t, f.Err, "naming the shards of kind regional: no names")
}

func TestAListingThatPanicsIsGivenToTheErrorHandlerWithItsStack(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	failures := make(chan delta.Failure, 1)
	config := h.config(with(&controller[mirror]{inform: func(context.Context, *delta.InformOptions) (<-chan mirror, error) { panic(errBoom) }}))
	config.ErrorHandler = func(_ context.Context, f delta.Failure) { failures <- f }
	c := h.client(config)
	_, err := h.runPass(c, "mirror", activities.InformInput{})
	require.ErrorContains(t, err, "hooks_listing_test.go", "Temporal shows where it was")
	f := <-failures
	require.True(t, f.IsPanic)
	require.Contains(t, f.Stack, "hooks_listing_test.go")
	require.ErrorIs(t, f.Err, errBoom)
}
