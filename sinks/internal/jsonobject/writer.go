// Package jsonobject writes the bodies of messages. Appending each member takes a fifth of the time of encoding a struct, which matters
// because every message has a body.
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

// Open begins an object, which Close ends.
func (w *Writer) Open() { w.Out, w.comma = append(w.Out, '{'), false }

// Close ends an object.
func (w *Writer) Close() { w.Out, w.comma = append(w.Out, '}'), true }

// Name begins a member. The caller appends its value to Out.
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

// JSON adds a member with a value that is JSON already; null for nil.
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
