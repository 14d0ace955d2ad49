package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

func TestHistoryShowsWhatHasChanged(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.execSQL(`select delta_append_change('created', delta_order_xid(null), 1, 'page', 'a', 'default', 1, 1, null, '{"path": "a", "title": "old"}', null, null)`)
	i.execSQL(`select delta_append_change('failed', delta_order_xid(null), 1, 'page', 'a', 'default', 2, 1, '{"path": "a", "title": "old"}',
		'{"path": "a", "title": "new \u001b[31m"}', 'the upstream is \x1b away', 'traceparent: 00-1')`)
	i.execSQL(`select delta_append_change('deleted', delta_order_xid(null), 1, 'page', 'a', 'default', 3, 1, '{"path": "a", "title": "old"}', null, null, null)`)

	r := i.runWith(streams{width: 80}, "resources", "history", "page", "a")
	require.Equal(t, exitOK, r.code, r.stderr)
	requireNarrow(t, r.stdout)
	require.Regexp(t, `(?s)\A\S+ \(.+\)  deleted, generation 3\n\n\S+ \(.+\)  failed, generation 2\n    the upstream .+\n`+
		`    title: "old" → "new .*"\n\n\S+ \(.+\)  created, generation 1\n    path: "a"\n    title: "old"\n\z`, r.stdout)
	require.NotContains(t, r.stdout, "\x1b")

	out := decode[historyJSON](t, i.run("resources", "history", "page", "a", "--limit", "2", "-o", "json"))
	require.Len(t, out.Changes, 2)
	require.Equal(t, []differenceJSON{{"title", json.RawMessage(`"old"`), json.RawMessage(`"new \u001b[31m"`)}}, out.Changes[1].Differences)
	require.Equal(t, "00-1", out.Changes[1].TraceParent)
	require.NotNil(t, out.NextBefore)
	out = decode[historyJSON](t, i.run("resources", "history", "page", "a", "--before", wording.Number(*out.NextBefore), "-o", "json"))
	require.Len(t, out.Changes, 1)
	require.Nil(t, out.NextBefore)

	r = i.run("resources", "history", "page", "b")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.stderr, "no changes of page/b")
	require.Equal(t, exitUsage, i.run("resources", "history", "page").code)
	require.Contains(t, i.run("resources", "history", "page", "a", "--limit", "0").stderr, "--limit 0")
}

func TestDoctorNamesWhatHoldsTheLogOfChanges(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	tx, err := i.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	i.execSQL(`select delta_append_change('created', delta_order_xid(null), 1, 'page', 'a', 'default', 1, 1, null, '{}', null, null)`)
	held := func() checkJSON { return decodeChecks(t, i.run("doctor", "-o", "json"))["log of changes"] }
	require.Empty(t, held(), "it has not been held back for long")
	i.execSQL(`update delta_change set at = now() - interval '1 hour'`)
	require.Equal(t, delta.CheckWarning, held().Status)
	require.Regexp(t, `1 change is held back from readers for 1h by a transaction of process \d+ `, held().Detail)
	require.Contains(t, held().Remedy, "pg_terminate_backend(")
	require.NoError(t, tx.Rollback(t.Context()))

	i.execSQL(`insert into delta_change_consumer (name, members, member, epoch, order_xid, id) values ('sink', 2, 1, 1, '3', 0)`)
	consumer := func() checkJSON {
		return decodeChecks(t, i.run("doctor", "-o", "json"))["consumer of changes sink 1 of 2"]
	}
	require.Equal(t, delta.CheckWarning, consumer().Status)
	require.Contains(t, consumer().Detail, "1 change behind, the first since 1h, and no process has it")
	i.execSQL(`update delta_installation set change_epoch = 2`)
	require.Equal(t, delta.CheckFailure, consumer().Status)
	require.Contains(t, consumer().Detail, "cannot read on")
}
