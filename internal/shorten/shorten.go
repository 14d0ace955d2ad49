// Package shorten cuts texts from outside, so that they can be stored and shown.
package shorten

import (
	"fmt"
	"strings"
)

// mark is the end of a text that was cut.
const mark = " … (cut)"

// Text returns the text, or if it is longer than limit bytes, its beginning up to a whole character, with a mark. The result is valid UTF-8 without
// NUL, because neither Postgres nor exporters of telemetry accept anything else.
func Text(s string, limit int) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len(mark)], "") + mark
}

// Error returns the text of an error, cut. The methods of the error may be user code: if they panic, the text names the error's type.
func Error(err error, limit int) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = Text(fmt.Sprintf("an error of type %T, whose methods panic: %v", err, v), limit)
		}
	}()
	return Text(err.Error(), limit)
}
