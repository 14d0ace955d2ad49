package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/messagedb"
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

func TestMigrateMessageDB(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	schema := strings.ToLower(i.Schema) + "_messages"
	run := func(more ...string) result {
		return inProcess(t.Context(), streams{}, append([]string{"migrate", "messagedb", "--schema", schema, "--database-url", i.DatabaseURL}, more...)...)
	}
	for range 2 {
		r := run()
		require.Equal(t, exitOK, r.code, r.stderr)
		require.Equal(t, "schema "+schema+" has a message store\n", r.stdout)
	}
	require.JSONEq(t, `{"schema": "`+schema+`"}`, run("-o", "json").stdout)
	messages, err := messagedb.NewClient(i.Pool, &messagedb.Config{Schema: schema})
	require.NoError(t, err)
	position, err := messages.Write(t.Context(), "thing-1", []messagedb.ProposedMessage{{Type: "Made", Data: messagedb.NoData}}, messagedb.AnyVersion)
	require.NoError(t, err)
	require.Zero(t, position)
	_, err = i.Pool.Exec(t.Context(), "DROP SCHEMA "+schema+" CASCADE")
	require.NoError(t, err)
}
