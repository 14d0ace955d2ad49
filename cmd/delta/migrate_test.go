package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMigrateAsJSON(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	url := i.emptySchema()
	migrate := func(what string) (v map[string]any) {
		t.Helper()
		r := inProcess(t.Context(), streams{}, "migrate", what, "-o", "json", "--database-url", url)
		require.Equal(t, exitOK, r.code, r.stderr)
		require.NoError(t, json.Unmarshal([]byte(r.stdout), &v))
		return v
	}
	list := migrate("status")["migrations"].([]any)
	require.NotEmpty(t, list)
	require.Nil(t, list[0].(map[string]any)["applied_at"])
	require.Zero(t, migrate("version")["version"])
	up := migrate("up")
	require.Equal(t, i.Schema+"_empty", up["schema"])
	require.Zero(t, up["version_before"])
	require.Equal(t, list[len(list)-1].(map[string]any)["version"], up["version"])
	require.NotNil(t, migrate("status")["migrations"].([]any)[0].(map[string]any)["applied_at"])
	require.Less(t, migrate("down")["version"], up["version"])
}
