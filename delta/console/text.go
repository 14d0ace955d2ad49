package console

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// redacted is a copy of a row as it may be shown.
func (h *handler) redacted(row *deltatype.ResourceRow) *deltatype.ResourceRow {
	row = row.Clone()
	if h.config.Redact != nil {
		h.config.Redact(row)
	}
	return row
}

// shortened is the first line of a text, 200 characters at most.
func shortened(text string) string {
	line, _, isLong := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 200 {
		line, isLong = string(runes[:200]), true
	}
	if isLong {
		line += " …"
	}
	return line
}

// visible shows characters that have no picture, or change the order of those beside them, as escapes: an id could look like
// another one.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\n' && r != '\t' && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r)) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// when is a time in UTC.
func when(t *time.Time) string {
	if t == nil {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
