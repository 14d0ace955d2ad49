package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestExplainSaysWhyAResourceIsNotSynced(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	r := i.run("resources", "explain", "page", "nobody")
	require.Equal(t, exitNotFound, r.code)
	require.Contains(t, r.stderr, "explain page/nobody: there is no such resource")

	c := i.startController(&pages{})
	i.inform(c, deltatype.ResourceStateDegraded, nil, "broken")
	i.inform(c, deltatype.ResourceStateSynced, nil, "good")
	require.Equal(t, exitOK, i.run("pause", "resource", "page", "broken").code)

	r = i.runWith(streams{width: 80}, "resources", "explain", "page", "broken")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	for _, part := range []string{
		"page/broken is degraded", "\nhopeless  its Work has said", "\n          since ", "\n          until ", "→ when the reason is gone: delta resources retry page broken",
		"\npaused    it is paused", "latest errors\n", "404 Not [31mFound",
	} {
		require.Contains(t, r.stdout, part)
	}
	out := decode[explanationJSON](t, i.run("resources", "explain", "page", "broken", "-o", "json"))
	require.Equal(t, "degraded", out.State)
	require.False(t, out.Synced)
	require.Len(t, out.Reasons, 2)
	require.Equal(t, string(delta.ReasonHopeless), out.Reasons[0].Code)
	require.NotNil(t, out.Reasons[0].Until)
	require.Contains(t, out.Errors[0].Error, "404\nNot \x1b[31mFound", "JSON is true to the row")
	require.Nil(t, out.TemporalError)

	out = decode[explanationJSON](t, i.run("resources", "explain", "page", "good", "-o", "json"))
	require.True(t, out.Synced)
	require.Equal(t, string(delta.ReasonSynced), out.Reasons[0].Code)
	require.Empty(t, out.Errors)

	// Without Temporal, the reasons come from the database.
	require.NoError(t, c.Stop(t.Context()))
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "new")
	without := []string{"resources", "explain", "page", "new", "--database-url", i.DatabaseURL, "--temporal-address", "127.0.0.1:1"}
	r = inProcess(t.Context(), streams{width: 80}, without...)
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	require.Contains(t, r.stdout, "\ntemporal_unreachable  Temporal cannot be asked")
	out = decode[explanationJSON](t, inProcess(t.Context(), streams{}, append(without, "-o", "json")...))
	require.Contains(t, *out.TemporalError, "127.0.0.1:1")
}
