package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamespacesAreShownSetAndReset(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	run := func(args ...string) result {
		return inProcess(t.Context(), streams{width: 80}, append(append([]string{"namespaces"}, args...), "--database-url", i.DatabaseURL)...)
	}
	r := run()
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stderr, "No namespace has settings")

	r = run("set", "acme", "--rate-limit", "2.5", "--expiry", "1h", "--degraded-retention", "-1s")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	// A setting that no flag names stays as it is, unless a named one excludes it.
	out := decode[namespacesJSON](t, run("set", "acme", "--max-workers", "3", "-o", "json")).Namespaces[0]
	require.Equal(t, 3, *out.MaxWorkers)
	require.InDelta(t, 2.5, *out.RateLimit, 0)
	require.InDelta(t, 3600, *out.Expiry, 0)
	require.InDelta(t, -1, *out.DegradedRetention, 0)
	require.Nil(t, out.SyncedRetention)
	require.True(t, out.Overridden)
	out = decode[namespacesJSON](t, run("set", "acme", "--synced-retention", "48h", "-o", "json")).Namespaces[0]
	require.Nil(t, out.Expiry)
	require.InDelta(t, 48*3600, *out.SyncedRetention, 0)
	require.Contains(t, run("list").stdout, "for ever")

	out = decode[namespacesJSON](t, run("reset", "acme", "-o", "json")).Namespaces[0]
	require.Equal(t, namespaceJSON{Name: "acme"}, out)
	r = run("set", "acme", "--max-workers", "-1")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "namespace acme.MaxWorkers -1: must be between 1 and 10000")
}
