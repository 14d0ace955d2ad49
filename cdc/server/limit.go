package server

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/chariot-giving/delta/cdc"
)

// messageRoom is what a message has besides its changes, at most: position, time, token, the name of an origin.
const messageRoom = 2 << 10

// chunkRoom is what a chunk has besides its text.
const chunkRoom = 256

// apart are the values of a change that are sent before it, in chunks.
type apart struct {
	change *cdc.Change
	values []valueApart
}

// valueApart is one of them: old says whether it is of the row before the change.
type valueApart struct {
	number int
	column int
	old    bool
	text   string
}

// find is the number of the chunks in which a value of a change was sent, zero where it stands in the change itself.
func (a *apart) find(c *cdc.Change, old bool, column int) int {
	if a.change != c {
		return 0
	}
	for _, v := range a.values {
		if v.old == old && v.column == column {
			return v.number
		}
	}
	return 0
}

// quotedLength is how many bytes a text has as a JSON string, at most.
func quotedLength(s string) int {
	n := len(s) + 2
	if !utf8.ValidString(s) { // each wrong byte becomes a character of three
		n += 2 * len(s)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ':
			n += 5
		case c == '"' || c == '\\':
			n++
		}
	}
	return n
}

// changeLength is how many bytes a change has in a message at most, with the description of its table if that is new.
func (e *encoder) changeLength(c *cdc.Change) int {
	n := 512
	if m := c.Message; m != nil {
		return n + quotedLength(m.Prefix) + max(quotedLength(string(m.Content)), 2*len(m.Content))
	}
	names := quotedLength(c.Relation.Schema) + quotedLength(c.Relation.Table)
	n += 2 * names
	for _, column := range c.Relation.Columns {
		n += quotedLength(column.Name) + quotedLength(column.Type) + 64
	}
	for _, row := range [][]cdc.Value{c.New, c.Old, c.Key} {
		for i, v := range row {
			length := quotedLength(c.Relation.Columns[i].Name) + quotedLength(v.Text) + 16
			if isKey(c.Relation, i) { // it stands in the key too
				length *= 2
			}
			n += length
		}
	}
	return n
}

// isKey reports whether a column is written in the key of a change.
func isKey(r *cdc.Relation, column int) bool {
	return r.Columns[column].Key && r.Identity != cdc.IdentityFull
}

// length is how many bytes were written, with the strings that are quoted later.
func (e *encoder) length() int {
	n := len(e.buffer)
	for _, one := range e.large {
		n += quotedLength(one.text)
	}
	return n
}

// fits reports whether a change has room in the message that was begun.
func (e *encoder) fits(c *cdc.Change) bool {
	return e.filter.most == 0 || e.length()+e.changeLength(c)+messageRoom <= e.filter.most
}

// setApart chooses the values of a change that alone is larger than a message may be, the largest first. It fails where there are none, or the
// client has not asked for chunks.
func (e *encoder) setApart(c *cdc.Change) error {
	e.apart = apart{change: c}
	length := e.changeLength(c) + messageRoom
	if length <= e.filter.most {
		return nil
	}
	for e.filter.chunks && c.Relation != nil && length > e.filter.most {
		largest := valueApart{column: -1}
		for _, row := range []struct {
			values []cdc.Value
			old    bool
		}{{c.New, false}, {c.Old, true}} {
			for i, v := range row.values {
				if !isKey(c.Relation, i) && len(v.Text) > len(largest.text) && e.apart.find(c, row.old, i) == 0 {
					largest = valueApart{column: i, old: row.old, text: v.Text}
				}
			}
		}
		if len(largest.text) < chunkRoom {
			break
		}
		e.values++
		largest.number = e.values
		e.apart.values = append(e.apart.values, largest)
		length -= quotedLength(largest.text) - 2*quotedLength(c.Relation.Columns[largest.column].Name) - 64
	}
	if length > e.filter.most {
		return e.tooLarge(c, length)
	}
	return nil
}

// tooLarge says which change does not fit.
func (e *encoder) tooLarge(c *cdc.Change, length int) error {
	of := "a message"
	if c.Message != nil {
		of += fmt.Sprintf(" with the prefix %.100q", c.Message.Prefix)
	} else {
		values := c.KeyValues()
		var key []string
		for _, column := range c.Relation.Columns {
			if column.Key && len(key) < len(values) {
				key = append(key, fmt.Sprintf("%s = %.100q", column.Name, values[len(key)].Text))
			}
		}
		of = fmt.Sprintf("%s %s of %s (%s)", article(c.Kind), c.Kind, c.Relation.Name(), strings.Join(key, ", "))
	}
	text := fmt.Sprintf("%s at %s takes %d bytes, and the client takes %d (max_message): come again with a larger limit", of, c.LSN, length, e.filter.most)
	if c.Relation != nil && !e.filter.chunks {
		text += ", or with large=chunks"
	}
	return refusal(http.StatusRequestEntityTooLarge, "too_large", text)
}

func article(kind cdc.Kind) string {
	if kind == cdc.KindInsert || kind == cdc.KindUpdate {
		return "an"
	}
	return "a"
}

// sendApart sends the chunks of a change's values, before the part of the transaction that has the change.
func (s *session) sendApart(t *cdc.Transaction) error {
	e := newEncoder(nil)
	for _, v := range s.encode.apart.values {
		rest := v.text
		for number := 0; len(rest) > 0; number++ {
			piece := fitting(rest, s.encode.filter.most-chunkRoom)
			rest = rest[len(piece):]
			e.clear()
			e.text(`{"type":"value","lsn":`)
			e.lsn(t.EndLSN)
			e.text(`,"value":`)
			e.number(uint64(v.number)) //nolint:gosec // it is positive
			e.text(`,"chunk":`)
			e.number(uint64(number))
			e.text(`,"text":`)
			e.string(piece)
			e.text(`,"final":`)
			e.boolean(len(rest) == 0)
			e.text(`}`)
			if err := s.send("value", e.frame(), ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// fitting is the beginning of a text that is no longer than so many bytes as a JSON string.
func fitting(s string, bytes int) string {
	piece := s[:cut(s, bytes)]
	for quotedLength(piece) > bytes {
		piece = piece[:cut(piece, len(piece)/2)]
	}
	return piece
}
