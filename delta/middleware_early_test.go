package delta_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// waitForEnd waits for the end of a context, and returns its cause.
func waitForEnd(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(patience):
		return errors.New("the context goes on")
	}
}

// around notes a call that Delta takes for finished while inner Middleware is still running.
func (c *seenCalls) around(ctx context.Context, _ *delta.Call, next func(context.Context) error) error {
	err := next(ctx)
	c.add("over: %v", err)
	return err
}

const endedEarly = "work ended: a Middleware returned before next had returned"

// impatient is Middleware that does not wait for next, or calls it when it must not. The object's name decides.
type impatient struct {
	// working receives when Work has begun, and refused the error of a call of next that came too late.
	working chan struct{}
	refused chan error
}

func (i impatient) around(ctx context.Context, call *delta.Call, next func(context.Context) error) error {
	begin := func() (returned chan error) {
		returned = make(chan error, 1)
		go func() { returned <- next(ctx) }()
		<-i.working
		return returned
	}
	switch call.Resources[0].ObjectID {
	case "error":
		begin()
		return errors.New("out of patience")
	case "nil":
		begin()
		return nil
	case "twice":
		returned := begin()
		i.refused <- next(ctx)
		i.working <- struct{}{}
		return <-returned
	case "late":
		after := context.WithoutCancel(ctx)
		go func() {
			<-ctx.Done()
			i.refused <- next(after)
		}()
	}
	return nil
}

// work is the Work that impatient wraps.
func (i impatient) work(ctx context.Context, id string, seen *seenCalls) error {
	seen.add("work")
	if id == "late" {
		return nil
	}
	i.working <- struct{}{}
	if id == "twice" {
		<-i.working
		return nil
	}
	err := waitForEnd(ctx)
	seen.add("work ended: %v", err)
	return ctx.Err()
}

func TestNoCallOutlivesItsMiddleware(t *testing.T) {
	t.Parallel()
	inBothModes(t, testOutlived[single], testOutlived[batches])
}

func testOutlived[M batchSized](t *testing.T) {
	for id, test := range map[string]struct {
		state                deltatype.ResourceState
		seen                 []string
		rowError, nextReturn string
	}{
		"error": {
			state: deltatype.ResourceStateDegraded, rowError: "out of patience",
			seen: []string{"work", endedEarly, "over: out of patience"},
		},
		"nil": {
			state: deltatype.ResourceStateDegraded, rowError: "a Middleware returned before next had returned: context canceled",
			seen: []string{"work", endedEarly, "over: a Middleware returned before next had returned: context canceled"},
		},
		"twice": {state: deltatype.ResourceStateSynced, seen: []string{"work", "over: <nil>"}, nextReturn: "a second time"},
		"late":  {state: deltatype.ResourceStateSynced, seen: []string{"over: <nil>"}, nextReturn: "after it had returned"},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var seen seenCalls
			misbehaves := impatient{working: make(chan struct{}), refused: make(chan error, 1)}
			config := h.config(with(&controller[loose[M]]{work: func(ctx context.Context, r *delta.Resource[loose[M]]) error {
				return misbehaves.work(ctx, r.ObjectID, &seen)
			}}))
			config.Middleware = []delta.Middleware{seen.around, misbehaves.around}
			c := h.start(config)
			_, err := c.Inform(t.Context(), loose[M]{Key: id}, &delta.InformOpts{MaxAttempts: 1})
			require.NoError(t, err)
			row := h.eventually("loose", id, inState(test.state))
			if test.rowError != "" {
				require.Equal(t, test.rowError, row.Errors[0].Error)
			}
			if test.nextReturn != "" {
				require.ErrorContains(t, <-misbehaves.refused, test.nextReturn)
			}
			require.Equal(t, test.seen, seen.seen())
		})
	}
}

// slowMany has a WorkBatch that Middleware does not wait for.
type slowMany struct {
	controller[taken]
	working chan struct{}
	seen    *seenCalls
}

func (s *slowMany) WorkBatch(ctx context.Context, resources []*delta.Resource[taken]) []error {
	close(s.working)
	s.seen.add("work ended: %v", waitForEnd(ctx))
	results := make([]error, len(resources))
	for i := range results {
		results[i] = errBoom
	}
	return results
}

func TestNoWorkBatchOutlivesItsMiddleware(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ returned, want error }{
		"an error counts for all":    {errors.New("out of patience"), errors.New("out of patience")},
		"without one, results count": {nil, errBoom},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var seen seenCalls
			slow := &slowMany{working: make(chan struct{}), seen: &seen}
			config := h.config(func(cs *delta.Controllers) { delta.AddController(cs, slow) })
			config.Middleware = []delta.Middleware{seen.around, func(ctx context.Context, _ *delta.Call, next func(context.Context) error) error {
				go func() { _ = next(ctx) }()
				<-slow.working
				return test.returned
			}}
			c := h.start(config)
			_, err := c.InformMany(t.Context(), []delta.Object{taken{"a"}, taken{"b"}}, &delta.InformOpts{MaxAttempts: 1})
			require.NoError(t, err)
			for _, id := range []string{"a", "b"} {
				row := h.eventually("taken", id, inState(deltatype.ResourceStateDegraded))
				require.Equal(t, test.want.Error(), row.Errors[0].Error)
			}
			over := "over: <nil>"
			if test.returned != nil {
				over = "over: out of patience"
			}
			require.Equal(t, []string{endedEarly, over}, seen.seen())
		})
	}
}

func TestNoListingOutlivesItsMiddleware(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var seen seenCalls
	began := make(chan struct{})
	config := h.config(with(&controller[mirror]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan mirror, error) {
		close(began)
		seen.add("work ended: %v", waitForEnd(ctx))
		objects := make(chan mirror)
		close(objects)
		return objects, nil
	}}))
	config.Middleware = []delta.Middleware{seen.around, func(ctx context.Context, _ *delta.Call, next func(context.Context) error) error {
		go func() { _ = next(ctx) }()
		<-began
		return nil
	}}
	_, err := h.runPass(h.client(config), "mirror", activities.InformInput{})
	require.ErrorContains(t, err, "a Middleware returned before next had returned")
	require.Equal(t, endedEarly, seen.seen()[0])
	require.Len(t, seen.seen(), 2)
}

// unwrapsBadly is an error whose Unwrap panics, like that of a nil pointer.
type unwrapsBadly struct{}

func (unwrapsBadly) Error() string { return "unwraps badly" }
func (unwrapsBadly) Unwrap() error { panic("no luck") }

func TestAListingWhoseErrorPanicsFails(t *testing.T) {
	t.Parallel()
	for name, inform := range map[string]func(context.Context) error{
		"returned": func(context.Context) error { return unwrapsBadly{} },
		"by FailInform": func(ctx context.Context) error {
			delta.FailInform(ctx, unwrapsBadly{})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			failures := make(chan delta.Failure, 1)
			config := h.config(with(&controller[mirror]{inform: func(ctx context.Context, _ *delta.InformOptions) (<-chan mirror, error) {
				objects := make(chan mirror)
				close(objects)
				return objects, inform(ctx)
			}}))
			config.ErrorHandler = func(_ context.Context, f delta.Failure) { failures <- f }
			_, err := h.runPass(h.client(config), "mirror", activities.InformInput{})
			require.ErrorContains(t, err, "unwrapsBadly: no luck")
			f := <-failures
			require.ErrorContains(t, f.Err, "unwrapsBadly: no luck")
			require.True(t, f.IsPanic)
			require.Contains(t, f.Stack, "middleware_early_test.go")
		})
	}
}
