package activities_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// Whether the transaction of CompleteTx was committed is read off the row. Postgres may not answer for a moment just then: it is asked again. If it does not
// for longer, what was rolled back must not pass for synced, nor what was committed for a failure.
func TestWhetherCompleteTxWasCommittedIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, lost := range []int64{1, 8} { // it asks six times
		for _, commits := range []bool{true, false} {
			t.Run(fmt.Sprintf("lost: %d, committed: %t", lost, commits), func(t *testing.T) {
				if lost > 1 {
					soak.Long(t)
				}
				t.Parallel()
				singleAndBatch(t, func(t *testing.T, batched bool) {
					l := losing{answer: "SELECT 1\x00", most: lost}
					h := newHarness(t, nil)
					ref := h.inform(object("a", "1"))
					h.handler.workTask = func(ctx context.Context, task *activities.Task) activities.Outcome {
						tx, err := h.env.Pool.Begin(ctx)
						require.NoError(t, err)
						defer tx.Rollback(ctx) //nolint:errcheck // it is committed, or meant to be rolled back
						require.NoError(t, task.CompleteTx(ctx, tx))
						if commits {
							require.NoError(t, tx.Commit(ctx))
						}
						l.armed.Store(true)
						return synced
					}
					h.Pool = otherPool(t, h, l.configure)
					if batched { // what it comes to is in the row: it may have to be read, too
						_, _ = h.AttemptBatch(t.Context(), h.batchOf(ref))
					} else {
						_, _ = h.Attempt(t.Context(), ref)
					}
					require.Positive(t, l.lost.Load(), "no answer was lost: the test shows nothing")
					h.Pool = h.env.Pool
					row := h.row(ref)
					if commits {
						require.Equal(t, deltatype.ResourceStateSynced, row.State)
						require.Empty(t, row.Errors)
						return
					}
					require.Equal(t, deltatype.ResourceStateFailed, row.State, "its effects were rolled back")
					why := "Work returned nil after CompleteTx, but the transaction was not committed"
					if lost > 1 {
						why = "Work returned nil after CompleteTx, and whether the transaction was committed could not be read"
					}
					require.Contains(t, errorsOf(row)[0], why)
				})
			})
		}
	}
}
