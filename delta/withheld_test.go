package delta_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// withheldIn returns the withheld deletion of the mode's kind, which Kinds must show too; nil if there is none.
func (g listedMode) withheldIn(c *delta.Client) *delta.Withheld {
	g.t.Helper()
	all, err := c.Withheld(g.t.Context())
	require.NoError(g.t, err)
	kinds, err := c.Kinds(g.t.Context())
	require.NoError(g.t, err)
	require.Len(g.t, kinds, 1)
	if len(all) == 0 {
		require.Nil(g.t, kinds[0].Withheld)
		return nil
	}
	require.Len(g.t, all, 1)
	require.Equal(g.t, &all[0], kinds[0].Withheld)
	return &all[0]
}

// A withheld deletion stays until a person decides, or listings are complete again.
func TestAWithheldDeletionStaysVisibleUntilItIsDecided(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		c := g.startListed(nil, func(context.Context, job) error { return nil })
		all := names("m", 6)
		g.setUpstream(all...)
		g.runInformer(c)
		require.Nil(t, g.withheldIn(c))
		_, err := c.ApproveWithheld(t.Context(), g.kind, "", 6)
		require.ErrorIs(t, err, delta.ErrNotWithheld)

		g.setUpstream()
		before := g.now()
		require.EqualValues(t, 6, g.runInformer(c).Withheld)
		w := g.withheldIn(c)
		require.EqualValues(t, 6, w.Missing)
		require.EqualValues(t, 6, w.Total)
		require.Empty(t, w.Decision)
		require.WithinRange(t, w.Since, before, g.now())
		require.True(t, g.logs.hasLine("level=ERROR", "names nothing at all", "delta informs approve", "missing=6"))
		require.EqualValues(t, 6, g.runInformer(c).Withheld)
		again := g.withheldIn(c)
		require.Equal(t, w.Since, again.Since)
		require.True(t, again.SeenAt.After(w.SeenAt))

		// A decision must name the number that the person saw.
		_, err = c.ApproveWithheld(t.Context(), g.kind, "", 5)
		require.ErrorIs(t, err, delta.ErrNotWithheld)
		_, err = c.DismissWithheld(t.Context(), g.kind, "", 0)
		require.ErrorContains(t, err, "missing 0: must be the number")

		// A complete listing ends the need for a decision.
		g.setUpstream(all...)
		require.Zero(t, g.runInformer(c).Withheld)
		require.Nil(t, g.withheldIn(c))
		require.Equal(t, 6, g.countStates(g.kind)[deltatype.ResourceStateSynced])
	})
}

func TestAWithheldDeletionIsCarriedOutWhenItIsApproved(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		c := g.startListed(nil, func(context.Context, job) error { return nil })
		g.setUpstream(names("m", 6)...)
		g.runInformer(c)
		g.setUpstream()
		g.runInformer(c)
		decided, err := c.ApproveWithheld(t.Context(), g.kind, "", 6)
		require.NoError(t, err)
		require.Equal(t, delta.WithheldApproved, decided.Decision)
		require.NotNil(t, decided.DecidedAt)

		// More than was approved is withheld again.
		g.inform(c, nil, "later")
		g.awaitRow("later", synced(1))
		require.EqualValues(t, 7, g.runInformer(c).Withheld)
		require.Empty(t, g.withheldIn(c).Decision)
		_, err = c.ApproveWithheld(t.Context(), g.kind, "", 7)
		require.NoError(t, err)
		run := g.runInformer(c)
		require.Equal(t, 7, run.Deleted)
		require.Zero(t, run.Withheld)
		require.Nil(t, g.withheldIn(c))
		require.Equal(t, 7, g.countStates(g.kind)[deltatype.ResourceStateDeleted])

		// The approval was only for that deletion.
		g.setUpstream(names("n", 6)...)
		g.runInformer(c)
		g.setUpstream()
		require.EqualValues(t, 6, g.runInformer(c).Withheld)
	})
}

func TestAWithheldDeletionThatIsDismissedIsKeptSilently(t *testing.T) {
	soak.Long(t)
	inListedModes(t, func(t *testing.T, g listedMode) {
		c := g.startListed(nil, func(context.Context, job) error { return nil })
		g.setUpstream(names("m", 6)...)
		g.runInformer(c)
		g.setUpstream()
		g.runInformer(c)
		_, err := c.DismissWithheld(t.Context(), g.kind, "", 6)
		require.NoError(t, err)
		require.EqualValues(t, 6, g.runInformer(c).Withheld, "the run reports it")
		require.Equal(t, delta.WithheldDismissed, g.withheldIn(c).Decision)
		require.Equal(t, 6, g.countStates(g.kind)[deltatype.ResourceStateSynced])

		// A larger deletion needs another decision.
		g.inform(c, nil, "later")
		g.awaitRow("later", synced(1))
		require.EqualValues(t, 7, g.runInformer(c).Withheld)
		require.Empty(t, g.withheldIn(c).Decision)
	})
}
