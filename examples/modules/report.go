package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	indent = "  "
	// maxNamed limits the modules named for one reason, because without a network it is the reason of all modules.
	maxNamed = 8
)

// writeReport writes the modules that are behind, those that are not known with the reasons, and the counts.
func writeReport(w io.Writer, source, proxies string, s snapshot) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	p("%s requires %s, looked up at %s\n", source, formatCount(len(s.rows), "module"), proxies)

	if rows := s.withOutcomes(outcomeBehind); len(rows) > 0 {
		p("\n")
		writeBehind(w, rows, s.at)
	}
	if n, of := s.countOutcomes(outcomeCurrent), len(s.rows); n > 0 && n == of {
		p("\n%sAll of them are up to date.\n", indent)
	} else if n > 0 {
		p("\n%s%s up to date.\n", indent, isAre(n))
	}
	for _, section := range []struct {
		outcome outcome
		title   string
	}{
		{outcomeFailed, "FAILED, and retried automatically"},
		{outcomeRefused, "REFUSED by the proxy"},
		{outcomeMissing, "MISSING: the proxy does not have it"},
		{outcomeSkipped, "SKIPPED"},
	} {
		if rows := s.withOutcomes(section.outcome); len(rows) > 0 {
			p("\n%s%s\n", indent, section.title)
			writeReasons(w, rows, s.at)
		}
	}
	p("\n%sBy state: %s\n", indent, cmp.Or(s.formatStates(), "no modules"))
}

func isAre(n int) string {
	if n == 1 {
		return "1 module is"
	}
	return fmt.Sprintf("%d modules are", n)
}

// writeBehind writes the table of modules that are behind: direct requirements first, then indirect ones, each by the number of releases.
func writeBehind(w io.Writer, rows []row, now time.Time) {
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(compareBool(a.Indirect, b.Indirect), cmp.Compare(b.newer, a.newer), cmp.Compare(a.Path, b.Path))
	})
	var lines [][]string
	for i, r := range rows {
		if i == 0 || r.Indirect != rows[i-1].Indirect {
			title := "REQUIRED DIRECTLY"
			if r.Indirect {
				title = "INDIRECTLY"
			}
			head := []string{title, "", "", "", ""}
			if i == 0 {
				head = []string{title, "HAS", "LATEST", "AGE", "BEHIND"}
			} else {
				lines = append(lines, make([]string, len(head)))
			}
			lines = append(lines, head)
		}
		name, version := r.Path, r.Version
		if path, replaced, _ := r.requestedModule(); r.Replacement != nil {
			name, version = r.Path+" => "+path, replaced
		}
		age := "?"
		if r.released != nil {
			age = formatAge(now.Sub(*r.released))
		}
		lines = append(lines, []string{name, shortVersion(version), shortVersion(r.latest), age, r.behind})
	}
	writeColumns(w, indent, lines)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// writeReasons writes modules grouped by reason, the most frequent reason first.
func writeReasons(w io.Writer, rows []row, now time.Time) {
	byReason := map[string][]row{}
	for _, r := range rows {
		byReason[r.reason()] = append(byReason[r.reason()], r)
	}
	reasons := make([]string, 0, len(byReason))
	for reason := range byReason {
		reasons = append(reasons, reason)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(byReason[b]), len(byReason[a])), strings.Compare(a, b))
	})
	for _, reason := range reasons {
		group := byReason[reason]
		for _, line := range wrapText(cmp.Or(reason, "(no reason)"), maxWidth-len(indent)) {
			_, _ = fmt.Fprintln(w, indent+line)
		}
		var lines [][]string
		for _, r := range group[:min(len(group), maxNamed)] {
			lines = append(lines, []string{r.Path, shortVersion(r.Version), formatNextAttempt(r, now)})
		}
		writeColumns(w, indent+indent, lines)
		if more := len(group) - maxNamed; more > 0 {
			_, _ = fmt.Fprintf(w, "%s… and %d more\n", indent+indent, more)
		}
	}
}

// formatNextAttempt says when a module is tried again, if that is soon.
func formatNextAttempt(r row, now time.Time) string {
	if r.outcome() != outcomeFailed {
		return ""
	}
	times := func(n int) string {
		if n == 1 {
			return "tried once"
		}
		return fmt.Sprintf("tried %d times", n)
	}
	if r.due == nil {
		return times(r.attempt-1) + ", again right now"
	}
	return fmt.Sprintf("%s, again in %s", times(r.attempt), max(r.due.Sub(now), 0).Round(time.Second))
}

// writeColumns writes lines with aligned columns. If they are too wide, it shortens the first column, which is the module's path.
func writeColumns(w io.Writer, indent string, lines [][]string) {
	const gap = 2
	if len(lines) == 0 {
		return
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	others := len(indent)
	for _, width := range widths[1:] {
		others += gap + width
	}
	widths[0] = min(widths[0], max(maxWidth-others, len("github.com/…")))
	for _, line := range lines {
		var b strings.Builder
		b.WriteString(indent)
		for i, cell := range line {
			if i == 0 {
				cell = truncateMiddle(cell, widths[0])
			}
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
		}
		_, _ = fmt.Fprintln(w, truncateEnd(strings.TrimRight(b.String(), " "), maxWidth))
	}
}

// wrapText breaks a text into lines of at most width characters, at spaces if possible.
func wrapText(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > width {
			runes := []rune(word)
			if line != "" {
				lines, line = append(lines, line), ""
			}
			lines, word = append(lines, string(runes[:width])), string(runes[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
