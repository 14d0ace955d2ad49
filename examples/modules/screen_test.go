package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestScreenOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out)
	s.width = func() int { return 10 }
	s.setLive("one")
	s.setLive("two two two two")
	s.printf("a line\n")
	s.setLive("")
	s.printf("the end\n")
	require.Equal(t, "one"+"\r\x1b[K"+"two two …"+"\r\x1b[K"+"a line\n"+"two two …"+"\r\x1b[K"+"the end\n", out.String())
}

func TestScreenElsewhere(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out)
	s.setLive("one")
	s.wrote = time.Now().Add(time.Hour)
	s.setLive("two, too soon")
	s.wrote = time.Now().Add(-plainEvery)
	s.setLive("three")
	s.wrote = s.wrote.Add(-plainEvery)
	s.setLive("three")
	s.setLive("")
	s.printf("the end\n")
	require.Equal(t, "one\nthree\nthe end\n", out.String())
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	s := snapshot{at: noon, rows: []row{
		knownRow("a", "v1.0.0", "v1.1.0", 1, "1 release", day),
		knownRow("b", "v1.0.0", "v1.0.0", 0, "", day),
		failingRow("c", 1, time.Second, "down"),
		settledRow("d", deltatype.ResourceStateDeleted, statusMissing, "410"),
		{Module: Module{Path: "e"}, state: deltatype.ResourceStatePending, attempt: 1},
	}}
	require.Equal(t, "  ████████████████░░░░ 4/5 · 2 synced · 1 pending · 1 failed · 1 missing · 2.0/s",
		progressLine(s, noon.Add(-2*time.Second)))
	require.Equal(t, "  ████████████████████ 0/0 · 0 synced · 0 pending · 0 failed", progressLine(snapshot{}, time.Time{}))
	require.Equal(t, "  5 modules · 2 synced · 1 pending · 1 failed · 1 missing · 7 checks, the last 0s ago: d", restingLine(s, 7))
	require.Equal(t, "1 scheduled, 2 pending", snapshot{rows: []row{
		{state: deltatype.ResourceStatePending}, {state: deltatype.ResourceStateScheduled}, {state: deltatype.ResourceStatePending},
	}}.formatStates())
}

func TestHints(t *testing.T) {
	found := tools{temporal: "/opt/my tools/temporal", postgresDir: "/usr/lib/postgresql/15/bin"}
	s := snapshot{rows: []row{
		failingRow("z", 1, time.Second, "down"),
		asIndirect(knownRow("a", "v1.0.0", "v1.0.0", 0, "", day)),
		knownRow("example.com/it's/long", "v1.0.0", "v1.0.0", 0, "", day),
	}}
	h := hints{tools: found, databaseURL: "postgres://u:p@h/d?sslmode=disable", address: "127.0.0.1:7233", namespace: "default", prefix: "delta", every: time.Hour}
	t.Setenv("DELTA_DATABASE_URL", "")
	text := h.renderText(s)
	require.Contains(t, text, " 'postgres://u:p@h/d?sslmode=disable' -c")
	require.Contains(t, text, "object_id = 'example.com/it''s/long'")
	require.Contains(t, text, `'/opt/my tools/temporal' workflow signal --address 127.0.0.1:7233 \`)
	require.Contains(t, text, `--workflow-id 'delta/module/example.com/it'\''s/long'`)
	require.Contains(t, text, "checked again 1h after it was synced")

	// The password of a user's database must not appear on the screen.
	t.Setenv("DELTA_DATABASE_URL", h.databaseURL)
	h.namespace, h.ui, h.console = "mine", "http://127.0.0.1:8233", "http://127.0.0.1:8234/"
	text = h.renderText(snapshot{rows: s.rows[:1]})
	require.NotContains(t, text, "u:p@h")
	require.Contains(t, text, `"$DELTA_DATABASE_URL" -c`)
	require.Contains(t, text, "--namespace mine")
	require.Contains(t, text, "--workflow-id delta/module/z\n")
	require.Contains(t, text, "Temporal UI  http://127.0.0.1:8233\n")
	require.Contains(t, text, "Console      http://127.0.0.1:8234/\n")

	text = h.renderText(snapshot{})
	require.Contains(t, text, "requires nothing")
	require.NotContains(t, text, "workflow signal")

	for d, want := range map[time.Duration]string{time.Hour: "1h", 2 * time.Minute: "2m", 90 * time.Second: "1m30s", 90 * time.Minute: "1h30m", time.Second: "1s"} {
		require.Equal(t, want, formatInterval(d))
	}
	require.False(t, strings.ContainsAny(quoteShell("a/b-c_d.e:1,+"), "'"))
	require.Equal(t, "'~'", quoteShell("~"))
	require.Equal(t, "''", quoteShell(""))
}
