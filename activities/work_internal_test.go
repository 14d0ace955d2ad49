package activities

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
)

func TestAFailureSaysWhyTheContextOfWorkEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause   error
		verdict Verdict
		failure string
	}{
		"timeout":               {context.DeadlineExceeded, VerdictFailed, "timed out after 1s: boom"},
		"lost claim":            {errClaimLost, VerdictReleased, "boom"},
		"deletion":              {errDeleted, VerdictFailed, "ended because the resource was deleted: boom"},
		"cancelled in Temporal": {temporal.NewCanceledError(), VerdictFailed, "cancelled in Temporal: boom"},
		"stop":                  {context.Canceled, VerdictFailed, "stopped: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, end := context.WithCancelCause(t.Context())
			end(c.cause)
			outcomes := (&Activities{}).explainOutcomes(ctx, []Outcome{{Verdict: VerdictFailed, Error: "boom"}, {Verdict: VerdictSynced}}, time.Second)
			require.Equal(t, []Outcome{{Verdict: c.verdict, Error: c.failure}, {Verdict: VerdictSynced}}, outcomes)
		})
	}
}

func TestAFailureOfACallWithTimeLeftIsNotExplained(t *testing.T) {
	t.Parallel()
	outcomes := (&Activities{}).explainOutcomes(t.Context(), []Outcome{{Verdict: VerdictFailed, Error: "boom"}}, time.Second)
	require.Equal(t, "boom", outcomes[0].Error)
}
