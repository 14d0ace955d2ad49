package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

var errBoom = errors.New("503 of the upstream")

// workFlaky fails, panics or degrades by the name of its object.
func workFlaky[M batchSized](_ context.Context, r *delta.Resource[loose[M]]) error {
	switch {
	case strings.HasPrefix(r.ObjectID, "panics"):
		panic("index out of luck")
	case strings.HasPrefix(r.ObjectID, "hopeless"):
		return delta.ResourceDegrade(errBoom)
	case strings.HasPrefix(r.ObjectID, "fails"):
		return fmt.Errorf("calling: %w", errBoom)
	}
	return nil
}

// handed collects the failures that an ErrorHandler gets.
type handed struct {
	mu  sync.Mutex
	all map[string][]delta.Failure
}

func (h *handed) noteFailure(_ context.Context, f delta.Failure) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[string][]delta.Failure{}
	}
	h.all[f.Resource.ObjectID] = append(h.all[f.Resource.ObjectID], f)
}

func (h *handed) failuresOf(id string) []delta.Failure {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[id]
}

func TestFailuresAreInTheLogAndGivenToTheErrorHandler(t *testing.T) {
	t.Parallel()
	inBothModes(t, testFailures[single], testFailures[batches])
}

func testFailures[M batchSized](t *testing.T) {
	h := newHarness(t)
	var logs logBuffer
	var failures handed
	config := h.config(with(&controller[loose[M]]{work: workFlaky[M]}))
	config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelInfo}))
	config.ErrorHandler = func(ctx context.Context, f delta.Failure) {
		failures.noteFailure(ctx, f)
		delta.Logger(ctx).Info("handled")
		if f.IsPanic {
			panic("the handler panics too")
		}
	}
	c := h.start(config)
	_, err := c.InformMany(t.Context(), []delta.Object{
		loose[M]{Key: "fails"}, loose[M]{Key: "fails-last"}, loose[M]{Key: "panics"}, loose[M]{Key: "hopeless"}, loose[M]{Key: "good"},
	}, nil)
	require.NoError(t, err)
	_, err = c.Inform(t.Context(), loose[M]{Key: "fails-last"}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	h.eventually("loose", "good", synced(1))
	for _, id := range []string{"fails", "fails-last", "panics", "hopeless"} {
		until(t, func() bool { return len(failures.failuresOf(id)) > 0 }, id)
	}

	f := failures.failuresOf("fails")[0]
	require.Equal(t, delta.OperationWork, f.Operation)
	require.Equal(t, "loose", f.Kind)
	require.ErrorIs(t, f.Err, errBoom, "the error itself, not its text")
	require.Equal(t, 1, f.Attempt)
	require.False(t, f.IsPanic || f.IsDegraded)
	require.Equal(t, deltatype.ResourceStateFailed, f.Resource.State)
	require.Equal(t, "calling: 503 of the upstream", f.Resource.Errors[0].Error)
	require.Positive(t, f.Duration)

	f = failures.failuresOf("panics")[0]
	require.True(t, f.IsPanic)
	require.Contains(t, f.Stack, "failure_test.go")
	panicked := new(delta.PanicError)
	require.ErrorAs(t, f.Err, &panicked)
	require.Equal(t, "index out of luck", panicked.Value)

	require.True(t, failures.failuresOf("hopeless")[0].IsDegraded)
	until(t, func() bool { return logs.hasLine("the last attempt failed", "object_id=fails-last") })

	fields := []string{"kind=loose", "namespace=default", "generation=1", "attempt=1", "workflow_id="}
	until(t, func() bool {
		return logs.hasLine(append(fields, "level=INFO", `msg="an attempt failed; it is tried again"`, "object_id=fails ", "503 of the upstream")...)
	})
	require.True(t, logs.hasLine(append(fields, "level=ERROR", "Work panicked", "object_id=panics", "failure_test.go")...))
	require.True(t, logs.hasLine(append(fields, "level=WARN", "degraded", "object_id=hopeless")...))
	until(t, func() bool { return logs.hasLine("msg=handled", "object_id=fails ") }, "the handler's context has a logger")
	until(t, func() bool { return logs.hasLine("level=ERROR", "the ErrorHandler panicked", "the handler panics too") })
}

// The row does not record these failures, so nothing else would show a panic.
func TestFailuresOfSupersededAttemptsReachTheErrorHandler(t *testing.T) {
	t.Parallel()
	inBothModes(t, testSupersededFailures[single], testSupersededFailures[batches])
}

func testSupersededFailures[M batchSized](t *testing.T) {
	h := newHarness(t)
	var logs logBuffer
	var failures handed
	work := func(ctx context.Context, r *delta.Resource[loose[M]]) error {
		switch r.ObjectID {
		case "completed":
			err := pgx.BeginFunc(ctx, h.Pool, func(tx pgx.Tx) error { return r.CompleteTx(ctx, tx) })
			if err != nil {
				return err
			}
		case "removed":
			if _, err := h.Pool.Exec(ctx, "DELETE FROM delta_resource WHERE id = $1", r.ID); err != nil {
				return err
			}
		}
		panic("too late")
	}
	config := h.config(with(&controller[loose[M]]{work: work}))
	config.Logger = logs.logger()
	config.ErrorHandler = func(ctx context.Context, f delta.Failure) { failures.noteFailure(ctx, f) }
	c := h.start(config)
	for _, id := range []string{"completed", "removed"} {
		_, err := c.Inform(t.Context(), loose[M]{Key: id}, nil)
		require.NoError(t, err)
		until(t, func() bool { return len(failures.failuresOf(id)) > 0 }, id)
		f := failures.failuresOf(id)[0]
		require.True(t, f.IsSuperseded, id)
		require.True(t, f.IsPanic, id)
		require.Contains(t, f.Stack, "failure_test.go", id)
		require.EqualValues(t, 1, f.Generation, id)
		require.Equal(t, 1, f.Attempt, id)
		require.True(t, logs.hasLine("level=ERROR", "after its resource had gone on without it", "object_id="+id+" ", "generation=1 ", "attempt=1 ", "failure_test.go"), id)
	}
	row := h.row("loose", "completed")
	require.Equal(t, deltatype.ResourceStateSynced, row.State)
	require.Empty(t, row.Errors)
	require.Len(t, failures.failuresOf("completed"), 1)
}

func TestFailuresInMassesAreCountedRatherThanLoggedOneByOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	config := h.config(with(&controller[loose[batches]]{work: func(_ context.Context, r *delta.Resource[loose[batches]]) error {
		var n int
		_, _ = fmt.Sscanf(r.ObjectID, "m%d", &n)
		switch {
		case n < 60:
			return errors.New("connection refused")
		case n < 90:
			return errors.New("429")
		}
		return fmt.Errorf("odd %d", n)
	}}))
	config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelInfo}))
	c := h.client(config)
	c.SetFailureWindow(time.Hour) // so it ends when the client stops
	var objects []delta.Object
	for n := range 100 {
		objects = append(objects, loose[batches]{Key: fmt.Sprintf("m%d", n)})
	}
	_, err := c.InformMany(t.Context(), objects, nil)
	require.NoError(t, err)
	batch := h.leaseBatch("loose", time.Hour)
	_, err = c.ActivitiesOf(batch.Installation, "loose").AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, 10, strings.Count(logs.String(), "an attempt failed"))
	require.NoError(t, c.Stop(t.Context()))
	require.True(t, logs.hasLine("level=INFO", "more attempts of the kind have failed", "kind=loose", "failures=90", "× connection refused", "× 429"), logs.String())
	require.Equal(t, 1, strings.Count(logs.String(), "more attempts"))
}

func TestAnErrorHandlerThatHangsHoldsNothingUp(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	release := make(chan struct{})
	defer close(release)
	config := h.config(with(&controller[loose[batches]]{work: func(context.Context, *delta.Resource[loose[batches]]) error { return errBoom }}))
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	config.ErrorHandler = func(context.Context, delta.Failure) { <-release }
	c := h.start(config)
	_, err := c.Inform(t.Context(), loose[batches]{Key: "a"}, &delta.InformOpts{MaxAttempts: 1})
	require.NoError(t, err)
	h.eventually("loose", "a", inState(deltatype.ResourceStateDegraded))
	require.NoError(t, c.Stop(t.Context()))
	require.True(t, logs.hasLine("the ErrorHandler has not returned"))
}
