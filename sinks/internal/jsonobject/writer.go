// Package jsonobject writes the bodies of messages. Each of many members is appended once, which takes a fifth of the time of encoding a struct: there is a body for
// each message.
package jsonobject

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Writer appends one object to Out. Invalid UTF-8 becomes U+FFFD.
type Writer struct {
	Out   []byte
	comma bool
}

// Open begins an object, Close ends it.
func (w *Writer) Open() { w.Out, w.comma = append(w.Out, '{'), false }

// Close ends an object.
func (w *Writer) Close() { w.Out, w.comma = append(w.Out, '}'), true }

// Name begins a member. What follows is its value, which is appended to Out.
func (w *Writer) Name(name string) {
	w.appendComma()
	w.appendQuoted(name)
	w.Out = append(w.Out, ':')
}

// String adds a member.
func (w *Writer) String(name, value string) {
	w.Name(name)
	w.appendQuoted(value)
}

// Int adds a member.
func (w *Writer) Int(name string, value int64) {
	w.Name(name)
	w.Out = strconv.AppendInt(w.Out, value, 10)
}

// JSON adds a member whose value is JSON as it is given; null for nil.
func (w *Writer) JSON(name string, value []byte) {
	w.Name(name)
	if value == nil {
		value = []byte("null")
	}
	w.Out = append(w.Out, value...)
}

// Strings adds a member that is an array.
func (w *Writer) Strings(name string, values []string) {
	w.Name(name)
	w.Out, w.comma = append(w.Out, '['), false
	for _, v := range values {
		w.appendComma()
		w.appendQuoted(v)
	}
	w.Out, w.comma = append(w.Out, ']'), true
}

func (w *Writer) appendQuoted(s string) { w.Out, _ = jsontext.AppendQuote(w.Out, s) }

func (w *Writer) appendComma() {
	if w.comma {
		w.Out = append(w.Out, ',')
	}
	w.comma = true
}
