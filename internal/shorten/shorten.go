// Package shorten cuts texts of others, so that they can be stored and shown.
package shorten

import (
	"fmt"
	"strings"
)

// mark ends a text that was cut.
const mark = " … (cut)"

// Text returns the text, or the beginning of one that is longer than limit bytes, at a whole character and with a mark. It is valid UTF-8 without NUL,
// which neither Postgres nor exporters of telemetry take.
func Text(s string, limit int) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len(mark)], "") + mark
}

// Error is the text of an error, cut. Its methods may be user code: one that panics is named by its type.
func Error(err error, limit int) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = Text(fmt.Sprintf("an error of type %T, whose methods panic: %v", err, v), limit)
		}
	}()
	return Text(err.Error(), limit)
}
