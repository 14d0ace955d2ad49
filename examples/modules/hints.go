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

// tools has the paths of the commands in the hints. The zero value means commands on the reader's PATH.
type tools struct{ temporal, postgresDir string }

func (t tools) temporalCommand() string { return quoteShell(cmp.Or(t.temporal, "temporal")) }

func (t tools) psqlCommand() string {
	if _, err := exec.LookPath("psql"); err == nil {
		return "psql"
	}
	if path := filepath.Join(t.postgresDir, "psql"); t.postgresDir != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return quoteShell(path)
		}
	}
	return "psql"
}

// hints has the values for the commands that a reader can try while the demo runs.
type hints struct {
	tools                      tools
	databaseURL, console, ui   string
	address, namespace, prefix string
	every                      time.Duration
}

// renderText renders the hints. Each command can be pasted as it is.
func (h hints) renderText(s snapshot) string {
	var b strings.Builder
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format, args...) }
	url := quoteShell(h.databaseURL)
	if _, given := stack.ExternalDatabase(); given {
		url = `"$DELTA_DATABASE_URL"` // the URL may have a password
	}
	psql := h.tools.psqlCommand() + " " + url
	temporal := "--address " + h.address
	if h.namespace != "default" {
		temporal += " --namespace " + quoteShell(h.namespace)
	}

	p("\n%sConsole      %s\n", indent, h.console)
	p("%sTemporal UI  %s\n", indent, cmp.Or(h.ui, "that of the Temporal at "+h.address))
	p("\nThree things to try in another terminal:\n")
	p("\n1. Query the table that Delta keeps up to date for what to upgrade first:\n\n")
	p("  %s -c \\\n    \"select path, version, latest, date_trunc('day', age) as age, behind\n", psql)
	p("     from module where behind <> '' order by indirect, newer desc\"\n")
	example := h.pickExample(s)
	if example == "" {
		p("\n(The go.mod requires nothing: the other two need a module.)\n")
		return b.String()
	}
	id := quoteShell(h.prefix + "/" + kind + "/" + example)
	p("\n2. Check a module now instead of when it expires: make it due, and wake its workflow:\n\n")
	p("  %s -qc \\\n    \"update delta_resource set due_at = now()\n", psql)
	p("     where kind = '%s' and object_id = '%s'\" &&\n", kind, strings.ReplaceAll(example, "'", "''"))
	p("  %s workflow signal %s \\\n    --name %s --workflow-id %s\n", h.tools.temporalCommand(), temporal, workflows.WakeSignal, id)
	p("\n3. See what that workflow has done so far:\n\n")
	p("  %s workflow show %s \\\n    --workflow-id %s\n", h.tools.temporalCommand(), temporal, id)
	if h.tools.temporal == "" {
		p("\n(No temporal command was found on this machine: `make temporal` builds one into .bin.)\n")
	}
	p("\nEverything is checked again %s after it was synced. Ctrl-C stops all of it.\n\n", formatInterval(h.every))
	return b.String()
}

// pickExample returns a module for the hints: one that has an answer, if possible, with the path that is easiest to type.
func (h hints) pickExample(s snapshot) string {
	for _, rows := range [][]row{s.withOutcomes(outcomeBehind, outcomeCurrent), s.withOutcomes(outcomeFailed), s.rows} {
		if len(rows) > 0 {
			return slices.MinFunc(rows, func(a, b row) int {
				return cmp.Or(compareBool(a.Indirect, b.Indirect), cmp.Compare(len(a.Path), len(b.Path)), cmp.Compare(a.Path, b.Path))
			}).Path
		}
	}
	return ""
}

// formatInterval formats a duration without zeros at its end.
func formatInterval(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// quoteShell quotes s for a shell, unless it is a plain word.
func quoteShell(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-~@%+=:,", r) || r == '~'
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
