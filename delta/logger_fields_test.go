package delta_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// told is a kind whose methods log a line with the logger of their context.
type told struct{ Name string }

func (o told) ID() string { return o.Name }
func (told) Kind() string { return "told" }
func (told) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 1}
}

// toldMany is told with batches.
type toldMany struct{ told }

func (toldMany) Kind() string { return "toldMany" }
func (toldMany) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: -1, BatchSize: 500}
}

// telling logs a line in each method of a controller.
type telling[T delta.Object] struct{ controller[T] }

func (*telling[T]) Work(ctx context.Context, r *delta.Resource[T]) error {
	delta.Logger(ctx).Info("in Work")
	if strings.HasPrefix(r.ObjectID, "gone") {
		return delta.ResourceDelete(errors.New("410"))
	}
	return nil
}

func (*telling[T]) Finalize(ctx context.Context, _ *delta.Resource[T]) error {
	delta.Logger(ctx).Info("in Finalize")
	return nil
}

func (*telling[T]) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan T, error) {
	delta.Logger(ctx).Info("in Inform")
	none := make(chan T)
	close(none)
	return none, nil
}

// tellingMany logs a line for the batch, and one for each of its resources.
type tellingMany struct{ telling[toldMany] }

func (*tellingMany) WorkBatch(ctx context.Context, all []*delta.Resource[toldMany]) []error {
	delta.Logger(ctx).Info("in WorkBatch")
	for _, r := range all {
		delta.Logger(delta.WithResource(ctx, r.ResourceRow)).Info("member of WorkBatch")
	}
	return make([]error, len(all))
}

// fieldsOf returns the fields of a row's log lines.
func fieldsOf(row *deltatype.ResourceRow, id string) []string {
	return []string{
		"kind=" + row.ObjectKind + " ", id, "namespace=" + row.Namespace + " ", fmt.Sprintf("generation=%d ", row.Generation), "attempt=1 ",
		"workflow_id=" + row.WorkflowID,
	}
}

func TestTheLoggerHasTheFieldsOfTheCall(t *testing.T) {
	t.Parallel()
	for _, hashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("hashed %t", hashed), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			var logs logBuffer
			config := h.config(func(cs *delta.Controllers) {
				delta.AddController(cs, &telling[told]{})
				delta.AddController(cs, &tellingMany{})
			})
			config.HashObjectIDs = hashed
			config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelInfo}))
			c := h.start(config)
			idOf := func(row *deltatype.ResourceRow) string {
				if hashed {
					return "hashed_id=" + row.HashedID + " "
				}
				return "object_id=" + row.ObjectID + " "
			}

			_, err := c.Inform(t.Context(), told{"one"}, &delta.InformOpts{Namespace: "tenant"})
			require.NoError(t, err)
			row := h.eventually("told", "one", synced(1))
			require.True(t, logs.hasLine(append(fieldsOf(row, idOf(row)), `msg="in Work"`)...), logs.String())

			_, err = c.Inform(t.Context(), told{"gone"}, &delta.InformOpts{Namespace: "tenant"})
			require.NoError(t, err)
			row = h.eventually("told", "gone", func(r *deltatype.ResourceRow) bool { return r.Finalized != nil && *r.Finalized })
			require.True(t, logs.hasLine(append(fieldsOf(row, idOf(row)), `msg="in Finalize"`)...), logs.String())

			objects := make([]delta.Object, 300)
			for i := range objects {
				objects[i] = toldMany{told{fmt.Sprintf("m%03d", i)}}
			}
			_, err = c.InformMany(t.Context(), objects, &delta.InformOpts{Namespace: "tenant"})
			require.NoError(t, err)
			for i := range objects {
				row := h.eventually("toldMany", fmt.Sprintf("m%03d", i), synced(1))
				require.True(t, logs.hasLine(append(fieldsOf(row, idOf(row)), `msg="member of WorkBatch"`)...), "of %s", row.ObjectID)
			}
			row = h.row("toldMany", "m000")
			require.True(t, logs.hasLine(`msg="in WorkBatch"`, "kind=toldMany ", "namespace=tenant ", "resources=", "workflow_id="+row.WorkflowID))

			require.NoError(t, c.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "told"}, nil))
			until(t, func() bool { return logs.hasLine(`msg="a pass of the informer has ended"`, "kind=told ") })
			passes, err := c.InformPasses(t.Context(), "told", "", 0)
			require.NoError(t, err)
			require.True(t, logs.hasLine(`msg="in Inform"`, "kind=told ", "run_id="+passes[0].RunID, "workflow_id="+passes[0].WorkflowID), logs.String())
			if hashed {
				require.NotContains(t, logs.String(), "object_id=")
			}
		})
	}
}

// partly lists some objects, and then fails.
type partly struct {
	controller[mirror]
	failure error
}

func (p *partly) Inform(ctx context.Context, _ *delta.InformOptions) (<-chan mirror, error) {
	objects := make(chan mirror)
	go func() {
		defer close(objects)
		for _, m := range append(newMirrors(3), mirror{}) { // the last has no id
			select {
			case objects <- m:
			case <-ctx.Done():
				return
			}
		}
		delta.FailInform(ctx, p.failure)
	}()
	return objects, nil
}

func TestAFailedPassLogsOneLineWithItsResult(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, hashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("hashed %t", hashed), func(t *testing.T) {
			t.Parallel()
			testFailedPass(t, hashed)
		})
	}
}

func testFailedPass(t *testing.T, hashed bool) {
	var logs logBuffer
	h, _ := newCountingHarness(t, &logs)
	config := h.config(func(cs *delta.Controllers) { delta.AddController(cs, &partly{failure: errBoom}) })
	config.HashObjectIDs = hashed
	config.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	failures := make(chan delta.Failure, 100)
	config.ErrorHandler = func(_ context.Context, f delta.Failure) { failures <- f }
	c := h.start(config)
	require.NoError(t, c.ScheduleInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror"}, nil))
	<-failures
	passes, err := c.InformPasses(t.Context(), "mirror", "", 0)
	require.NoError(t, err)
	first := passes[len(passes)-1]
	require.GreaterOrEqual(t, first.Listed, int64(3))
	require.True(t, logs.hasLine("level=WARN", "a pass of the informer failed", "kind=mirror ", "workflow_id="+first.WorkflowID+" ", "run_id="+first.RunID+" ",
		"attempt=1 ", "trigger=request ", fmt.Sprintf("listed=%d new=%d changed=%d unchanged=%d stale=%d refused=%d unkept=0 deleted=0 withheld=0 ",
			first.Listed, first.New, first.Changed, first.Unchanged, first.Stale, first.Refused), "took=", errBoom.Error()), logs.String())
	// The SDK has answered Temporal and logged its own line before.
	<-failures
	of := func(text string) (lines []string) {
		for line := range strings.Lines(logs.String()) {
			if strings.Contains(line, text) && strings.Contains(line, "ttempt=1 ") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	require.Len(t, of(errBoom.Error()), 1)
	require.NotContains(t, logs.String(), "Activity error.", "the SDK logs the same at debug level")
	require.NotContains(t, logs.String(), "an activity failed", "it has a line of its own")
}
