package delta_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// listedPayment has complete listings, children first.
type listedPayment struct{ payment[single] }

func (listedPayment) Kind() string { return "listed_payment" }
func (listedPayment) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: 4, InformInterval: -1, CompleteListing: true, BatchSize: 1}
}

func TestAListingThatHoldsChildrenFirst(t *testing.T) {
	t.Parallel()
	f := newFamily[single](t)
	of := func(name string, parent string) listedPayment {
		o := listedPayment{payment[single]{Name: name}}
		if parent != "" {
			o.Of = []delta.Ref{{Kind: "listed_payment", ObjectID: parent}}
		}
		return o
	}
	c := f.start(f.config(with(&controller[listedPayment]{
		work: func(ctx context.Context, r *delta.Resource[listedPayment]) error {
			return f.workPayment(ctx, &delta.Resource[payment[single]]{ResourceRow: r.ResourceRow, Object: r.Object.payment})
		},
		inform: func(context.Context, *delta.InformOptions) (<-chan listedPayment, error) {
			all := []listedPayment{
				of("a child", "a parent"), of("an orphan", "nobody"), of("of itself", "another"), of("another", "of itself"), of("a parent", ""), of("z", "a child"),
			}
			listed := make(chan listedPayment, len(all))
			for _, o := range all {
				listed <- o
			}
			close(listed)
			return listed, nil
		},
	})))
	_, err := c.RunInform(t.Context(), delta.ScheduleInformParams{ResourceKind: "listed_payment", RunForeground: true}, nil)
	require.NoError(t, err, "a child of a cycle does not wait for ever")
	f.awaitSynced("listed_payment", "z", 1)
	f.awaitSynced("listed_payment", "a child", 1)
	refused, err := c.Refused(t.Context(), "listed_payment")
	require.NoError(t, err)
	require.Len(t, refused, 1, "one of the two that make a cycle")
	require.Contains(t, refused[0].Rule, " → ")
	require.True(t, refused[0].IsKept)
	require.Equal(t, deltatype.ResourceStateScheduled, f.row("listed_payment", "an orphan").State)
}
