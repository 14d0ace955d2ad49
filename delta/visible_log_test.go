package delta_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// countLines counts lines of a log with a message and all of some fields.
func (b *logBuffer) countLines(message string, fields ...string) (n int) {
	for line := range strings.Lines(b.String()) {
		has := strings.Contains(line, fmt.Sprintf("msg=%q", message))
		for _, field := range fields {
			has = has && strings.Contains(line, " "+field)
		}
		if has {
			n++
		}
	}
	return n
}

func TestTheLogHasTheOutcomesOfAResource(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	config := h.config(with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error { return nil }}))
	config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "ann", synced(1))
	of := []string{"kind=account", "object_id=ann", "namespace=default", "generation=1", "workflow_id=" + row.WorkflowID}
	until(t, func() bool {
		return logs.countLines("an outcome was written", append(of, "attempt=1", "state=synced")...) == 1
	}, "%s", &logs)
	require.Equal(t, 1, logs.countLines("rows were leased", "level=DEBUG", "kind=account", "resources=1"))
	// The line is logged after Temporal's answer; by then, the workflow may have synced the resource.
	until(t, func() bool { return logs.countLines("a workflow was started or woken", of...) == 1 }, "%s", &logs)
	require.Equal(t, 1, logs.countLines("an attempt was claimed", append(of, "attempt=1", "claim=")...))
}

func TestTheLogHasTheResultOfAPass(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	outside := &upstream[mirror]{all: newMirrors(10)}
	config := h.config(with(&controller[mirror]{inform: outside.inform}))
	config.Logger = logs.logger()
	c := h.start(config)
	run := func() *delta.InformRun {
		r, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "mirror", RunForeground: true}, nil)
		require.NoError(t, err)
		return r
	}
	r := run()
	require.Equal(t, 1, logs.countLines("a pass of the informer has ended", "level=INFO", "kind=mirror", "workflow_id="+r.WorkflowID, "run_id="+r.RunID, "trigger=request",
		"listed=10", "new=10", "changed=0", "unchanged=0", "deleted=0", "withheld=0", "pages=", "complete=true"), logs.String())
	outside.set(newMirrors(9)...)
	run()
	require.Equal(t, 1, logs.countLines("a pass of the informer has ended", "listed=9", "new=0", "unchanged=9", "deleted=1"))
}

func TestTheLogHasNoIDThatIsHashed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var logs logBuffer
	config := h.config(
		with(&controller[account]{work: func(_ context.Context, r *delta.Resource[account]) error {
			if r.Attempt == 1 {
				return errBoom
			}
			return nil
		}}),
		with(&controller[batched]{}),
	)
	config.HashObjectIDs = true
	config.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := h.start(config)
	_, err := c.Inform(t.Context(), account{Name: "classified"}, nil)
	require.NoError(t, err)
	_, err = c.InformMany(t.Context(), manyBatched(names("classified", 40)...), nil)
	require.NoError(t, err)
	row := h.eventually("account", "classified", synced(1))
	h.eventually("batched", "classified00", synced(1))
	until(t, func() bool {
		return logs.countLines("an outcome was written", "hashed_id="+row.HashedID, "state=synced") == 1
	})
	require.Positive(t, logs.countLines("an attempt was claimed", "hashed_id="+row.HashedID))
	require.Positive(t, logs.countLines("members of a batch were claimed"))
	require.NotContains(t, logs.String(), "classified")
}
