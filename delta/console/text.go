package console

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// redactRow returns a copy of a row after Redact.
func (h *handler) redactRow(row *deltatype.ResourceRow) *deltatype.ResourceRow {
	row = row.Clone()
	if h.config.Redact != nil {
		h.config.Redact(row)
	}
	return row
}

// shortenText returns the first line of a text, up to 200 characters.
func shortenText(text string) string {
	line, _, isLong := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 200 {
		line, isLong = string(runes[:200]), true
	}
	if isLong {
		line += " …"
	}
	return line
}

// escapeInvisible escapes characters that are invisible or change the direction of text. Otherwise two different ids could look the same.
func escapeInvisible(text string) string {
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

// timeText returns a time in UTC, or a dash for nil.
func timeText(t *time.Time) string {
	if t == nil {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
