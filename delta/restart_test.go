package delta_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// A start that failed because Temporal or the schema was missing can be repeated.
func TestAStartAfterOneThatFailedWorks(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), "alter table delta_installation rename to away")
	require.NoError(t, err)
	c := h.client(h.config(with(&controller[account]{work: func(ctx context.Context, _ *delta.Resource[account]) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
			return nil
		}
	}})))
	require.ErrorIs(t, c.Start(context.Background()), delta.ErrNoSchema)
	_, err = h.Pool.Exec(t.Context(), "alter table away rename to delta_installation")
	require.NoError(t, err)
	require.NoError(t, c.Start(context.Background()))
	_, err = c.Inform(t.Context(), account{Name: "a"}, nil)
	require.NoError(t, err)
	row := h.eventually("account", "a", synced(1))
	require.Empty(t, row.Errors)
	require.NoError(t, c.Stop(t.Context()))
}
