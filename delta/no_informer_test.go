package delta_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// blind is a kind without a listing.
type blind struct{ account }

func (blind) Kind() string { return "blind" }
func (blind) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{InformInterval: time.Hour}
}

type blindController struct {
	delta.WorkerDefaults[blind]
	delta.NoInformer[blind]
}

func (blindController) Work(context.Context, *delta.Resource[blind]) error { return nil }

func TestAKindWithoutAnInformerHasNoScheduleAndNoRuns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.start(h.config(addTo[blind](blindController{})))
	_, err := h.Temporal.ScheduleClient().GetHandle(t.Context(), h.Prefix+"/inform:blind").Describe(t.Context())
	require.ErrorAs(t, err, new(*serviceerror.NotFound))

	for _, asks := range []*delta.Client{c, h.client(h.config())} {
		params := delta.ScheduleInformParams{ResourceKind: "blind"}
		var input *delta.InputError
		_, err = asks.RunInform(t.Context(), params, nil)
		require.ErrorAs(t, err, &input)
		require.Equal(t, "ResourceKind", input.Field)
		require.Contains(t, input.Rule, "delta.NoInformer")
		require.ErrorAs(t, asks.ScheduleInform(t.Context(), params, nil), &input)
	}
	row, err := c.Sync(t.Context(), blind{account{Name: "a"}}, nil)
	require.NoError(t, err)
	require.Equal(t, deltatype.ResourceStateSynced, row.State)
	kinds, err := c.Kinds(t.Context())
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(kinds, func(k delta.KindStatus) bool { return k.Kind == "blind" && k.ListsNothing }), fmt.Sprint(kinds))
}
