package delta_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"google.golang.org/grpc/codes"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// The answer to an eager start has the first task of the workflow. If it is lost with its process, another worker gets it.
func TestAProcessKilledWithTheAnswerToAnEagerStartIsReplaced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	_, err := h.client(&delta.Config{}).Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	h.killChild("eager", "accepted")
	require.True(t, h.startAttributes("account", "ann").GetEagerExecutionAccepted())
	require.Equal(t, deltatype.ResourceStateScheduled, h.row("account", "ann").State)

	h.startWorker(nil)
	// This takes Temporal's timeout of 10 s, and longer on a loaded development server.
	row := h.eventually("account", "ann", synced(1))
	require.Equal(t, 1, row.Attempt)
	require.Empty(t, row.Errors, "no attempt was lost")
}

// A lost answer costs nothing if the SDK repeats the start, and Temporal's timeout if the dispatcher does.
func TestAnEagerStartWhoseAnswerIsLostIsRepeated(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for _, c := range []struct {
		by       string
		code     codes.Code
		timesOut bool
	}{{"the SDK", codes.Unavailable, false}, {"the dispatcher", codes.InvalidArgument, true}} {
		t.Run("by "+c.by, func(t *testing.T) {
			t.Parallel()
			var temporal starts
			h := temporal.harness(t)
			worker := h.startWorker(nil)
			temporal.lose.Store(uint32(c.code))
			_, err := worker.Inform(t.Context(), account{Name: "ann"}, nil)
			require.NoError(t, err)
			row := h.eventually("account", "ann", synced(1))
			require.Equal(t, c.timesOut, slices.ContainsFunc(h.history(h.Prefix+"/account/ann"), isFirstTask(enumspb.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)))
			require.EqualValues(t, 1, temporal.begun.Load(), "an answer was lost")
			require.True(t, h.startAttributes("account", "ann").GetEagerExecutionAccepted())
			require.Equal(t, 1, row.Attempt)
			require.EqualValues(t, 1, row.SyncCount)
		})
	}
}

// A new row may find a closing workflow of the same id: either it hears of the row, or another one is started.
func TestAnInformWhileTheWorkflowClosesIsSynced(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	h := newHarness(t)
	config := h.config(with(&controller[account]{}))
	config.Namespaces = map[string]delta.NamespaceConfig{delta.NamespaceDefault: {
		MaxWorkers: 100, DeletedResourceRetentionPeriod: time.Millisecond,
	}}
	c := h.client(config)
	c.SetTiming(time.Hour, 0, 0) // so that the end of a lease does not help
	require.NoError(t, c.Start(context.Background()))
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	for _, name := range names("closing", 8) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness{t: t, Env: h.Env}
			for round := range 10 {
				informed, err := c.Inform(t.Context(), account{Name: name, Plan: fmt.Sprint(round)}, nil)
				require.NoError(t, err)
				h.eventually("account", name, synced(informed.Resource.Generation))
				_, err = c.Delete(t.Context(), "account", name)
				require.NoError(t, err)
				if round%2 == 0 { // before its workflow has noticed, or after
					time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
					continue
				}
				until(t, func() bool { return h.row("account", name) == nil }) // as soon as the row is removed
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
			}
		})
	}
}
