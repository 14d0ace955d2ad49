package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/internal/stack"
	"github.com/chariot-giving/delta/workflows"
)

// tools are the commands that the hints use. The zero value leaves it to the reader's PATH.
type tools struct{ temporal, postgresDir string }

func (t tools) temporalCommand() string { return quote(cmp.Or(t.temporal, "temporal")) }

func (t tools) psqlCommand() string {
	if _, err := exec.LookPath("psql"); err == nil {
		return "psql"
	}
	if path := filepath.Join(t.postgresDir, "psql"); t.postgresDir != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return quote(path)
		}
	}
	return "psql"
}

// hints are what a reader can try while the demo runs.
type hints struct {
	tools                      tools
	databaseURL, console, ui   string
	address, namespace, prefix string
	every                      time.Duration
}

// text is for pasting: each command works as it stands.
func (h hints) text(s snapshot) string {
	var b strings.Builder
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format, args...) }
	url := quote(h.databaseURL)
	if _, given := stack.ExternalDatabase(); given {
		url = `"$DELTA_DATABASE_URL"` // it may hold a password
	}
	psql := h.tools.psqlCommand() + " " + url
	temporal := "--address " + h.address
	if h.namespace != "default" {
		temporal += " --namespace " + quote(h.namespace)
	}

	p("\n%sConsole      %s\n", indent, h.console)
	p("%sTemporal UI  %s\n", indent, cmp.Or(h.ui, "that of the Temporal at "+h.address))
	p("\nThree things to try in another terminal:\n")
	p("\n1. Ask the table that Delta keeps true what to upgrade first:\n\n")
	p("  %s -c \\\n    \"select path, version, latest, date_trunc('day', age) as age, behind\n", psql)
	p("     from module where behind <> '' order by indirect, newer desc\"\n")
	example := h.example(s)
	if example == "" {
		p("\n(The go.mod requires nothing: the other two need a module.)\n")
		return b.String()
	}
	id := quote(h.prefix + "/" + kind + "/" + example)
	p("\n2. Have a module checked now instead of when its time comes: say that it is due, wake its workflow:\n\n")
	p("  %s -qc \\\n    \"update delta_resource set due_at = now()\n", psql)
	p("     where kind = '%s' and object_id = '%s'\" &&\n", kind, strings.ReplaceAll(example, "'", "''"))
	p("  %s workflow signal %s \\\n    --name %s --workflow-id %s\n", h.tools.temporalCommand(), temporal, workflows.WakeSignal, id)
	p("\n3. See what that workflow has done so far:\n\n")
	p("  %s workflow show %s \\\n    --workflow-id %s\n", h.tools.temporalCommand(), temporal, id)
	if h.tools.temporal == "" {
		p("\n(No temporal command was found on this machine: `make temporal` builds one into .bin.)\n")
	}
	p("\nEverything is checked again %s after it was synced. Ctrl-C stops all of it.\n\n", short(h.every))
	return b.String()
}

// example is a module to try things with: one that has an answer, if any has, and of those the one that types best.
func (h hints) example(s snapshot) string {
	for _, rows := range [][]row{s.of(outcomeBehind, outcomeCurrent), s.of(outcomeFailed), s.rows} {
		if len(rows) > 0 {
			return slices.MinFunc(rows, func(a, b row) int {
				return cmp.Or(compareBool(a.Indirect, b.Indirect), cmp.Compare(len(a.Path), len(b.Path)), cmp.Compare(a.Path, b.Path))
			}).Path
		}
	}
	return ""
}

// short writes a duration without the zeros at its end.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// quote makes s one word for a shell, and leaves it alone where it is one.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-~@%+=:,", r) || r == '~'
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
