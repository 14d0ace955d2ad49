package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

type traceKey struct{}

// seenCalls collects the calls that Middleware has seen.
type seenCalls struct {
	mu  sync.Mutex
	all []string
}

func (c *seenCalls) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

func (c *seenCalls) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.all...)
}

func (c *seenCalls) named(name string) delta.Middleware {
	return func(ctx context.Context, call *delta.Call, next func(context.Context) error) error {
		c.add("%s before %s of %s", name, call.Operation, call.Resources[0].ObjectID)
		err := next(context.WithValue(ctx, traceKey{}, name))
		c.add("%s after: %v", name, err)
		return err
	}
}

func TestMiddlewareIsAroundWorkAndItsErrorCounts(t *testing.T) {
	t.Parallel()
	inBothModes(t, testMiddleware[single], testMiddleware[batches])
}

func testMiddleware[M batchSized](t *testing.T) {
	h := newHarness(t)
	var seen seenCalls
	config := h.config(with(&controller[loose[M]]{work: func(ctx context.Context, r *delta.Resource[loose[M]]) error {
		seen.add("work in %v", ctx.Value(traceKey{}))
		switch r.ObjectID {
		case "panics":
			panic("no luck")
		case "forgiven":
			return errBoom
		}
		return nil
	}}))
	config.Middleware = []delta.Middleware{
		seen.named("outer"),
		func(ctx context.Context, call *delta.Call, next func(context.Context) error) error {
			switch call.Resources[0].ObjectID {
			case "instead":
				return nil
			case "refused":
				return delta.ResourceDegrade(errors.New("not allowed"))
			case "forgiven":
				_ = next(ctx)
				return nil
			}
			return next(ctx)
		},
		seen.named("inner"),
	}
	c := h.start(config)
	for _, one := range []struct {
		id    string
		state deltatype.ResourceState
		calls []string
	}{
		{"good", deltatype.ResourceStateSynced, []string{"outer before work of good", "inner before work of good", "work in inner", "inner after: <nil>", "outer after: <nil>"}},
		{"instead", deltatype.ResourceStateSynced, []string{"outer before work of instead", "outer after: <nil>"}},
		{"refused", deltatype.ResourceStateDegraded, []string{"outer before work of refused", "outer after: resource degraded: not allowed"}},
		{"forgiven", deltatype.ResourceStateSynced, []string{"outer before work of forgiven", "inner before work of forgiven", "work in inner", "inner after: 503 of the upstream", "outer after: <nil>"}},
		{"panics", deltatype.ResourceStateDegraded, []string{"outer before work of panics", "inner before work of panics", "work in inner", "inner after: panic: no luck", "outer after: panic: no luck"}},
	} {
		before := len(seen.seen())
		_, err := c.Inform(t.Context(), loose[M]{Key: one.id}, &delta.InformOpts{MaxAttempts: 1})
		require.NoError(t, err)
		row := h.eventually("loose", one.id, inState(one.state))
		require.Equal(t, one.calls, seen.seen()[before:])
		if one.id == "panics" {
			require.Contains(t, row.Errors[0].Trace, "middleware_test.go")
		}
	}
}

func TestMiddlewareThatPanicsHarmsNothing(t *testing.T) {
	t.Parallel()
	for name, panics := range map[string]delta.Middleware{
		"before": func(context.Context, *delta.Call, func(context.Context) error) error { panic("mine") },
		"after": func(ctx context.Context, _ *delta.Call, next func(context.Context) error) error {
			_ = next(ctx)
			panic("mine")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var logs logBuffer
			var seen seenCalls
			config := h.config(with(&controller[loose[single]]{work: func(_ context.Context, r *delta.Resource[loose[single]]) error {
				seen.add("work of %s", r.ObjectID)
				if r.ObjectID == "fails" {
					return errBoom
				}
				return nil
			}}))
			config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
			config.Middleware = []delta.Middleware{panics}
			c := h.start(config)
			for id, state := range map[string]deltatype.ResourceState{"good": deltatype.ResourceStateSynced, "fails": deltatype.ResourceStateDegraded} {
				_, err := c.Inform(t.Context(), loose[single]{Key: id}, &delta.InformOpts{MaxAttempts: 1})
				require.NoError(t, err)
				h.eventually("loose", id, inState(state))
			}
			require.ElementsMatch(t, []string{"work of good", "work of fails"}, seen.seen(), "once each")
			require.True(t, logs.hasLine("level=ERROR", "a Middleware panicked", "mine", "object_id=good"))
		})
	}
}

func TestMiddlewareSeesTheResultsOfABatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	config := h.config(func(cs *delta.Controllers) { delta.AddController(cs, &many500{}) })
	var seen seenCalls
	config.Middleware = []delta.Middleware{func(ctx context.Context, call *delta.Call, next func(context.Context) error) error {
		if call.Operation != delta.OperationWorkBatch {
			return errors.New("it is not for a batch")
		}
		err := next(ctx)
		for i, row := range call.Resources {
			seen.add("%s: %v", row.ObjectID, call.Results[i])
			if row.ObjectID == "b" {
				call.Results[i] = nil
			}
		}
		return err
	}}
	c := h.start(config)
	_, err := c.InformMany(t.Context(), []delta.Object{taken{"a"}, taken{"b"}, taken{"c"}}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	h.eventually("taken", "a", inState(deltatype.ResourceStateDegraded))
	h.eventually("taken", "b", synced(1))
	require.ElementsMatch(t, []string{"a: " + errBoom.Error(), "b: " + errBoom.Error(), "c: " + errBoom.Error()}, seen.seen())
}

// taken is worked by many500, all in one call.
type taken struct{ Name string }

func (o taken) ID() string { return o.Name }
func (taken) Kind() string { return "taken" }
func (taken) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 500}
}

type many500 struct{ controller[taken] }

func (*many500) WorkBatch(_ context.Context, resources []*delta.Resource[taken]) []error {
	results := make([]error, len(resources))
	for i := range results {
		results[i] = errBoom
	}
	return results
}

func TestNilMiddlewareIsRefused(t *testing.T) {
	t.Parallel()
	_, err := delta.NewClient(nil, &delta.Config{Middleware: []delta.Middleware{nil}})
	require.Error(t, err)
	h := newHarness(t)
	_, err = delta.NewClient(h.Pool, &delta.Config{Middleware: []delta.Middleware{nil}})
	require.ErrorContains(t, err, "Config.Middleware[0]")
	require.ErrorContains(t, err, "must not be nil")
}
