package server

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/chariot-giving/delta/cdc"
)

// messageOverhead is how much a message has besides its changes, at most: position, time, token, the name of an origin.
const messageOverhead = 2 << 10

// chunkOverhead is how much the message of a chunk has besides its text.
const chunkOverhead = 256

// chunkedValues are the values of a change that are sent before it, in chunks.
type chunkedValues struct {
	change *cdc.Change
	values []chunkedValue
}

// chunkedValue is a value that is sent in chunks. isOld reports whether it is of the row before the change.
type chunkedValue struct {
	number int
	column int
	isOld  bool
	text   string
}

// findNumber returns the number under which a value of a change was sent in chunks, 0 if the value is in the change itself.
func (a *chunkedValues) findNumber(c *cdc.Change, old bool, column int) int {
	if a.change != c {
		return 0
	}
	for _, v := range a.values {
		if v.isOld == old && v.column == column {
			return v.number
		}
	}
	return 0
}

// quotedLength returns an upper bound of the bytes that a text has as a JSON string.
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

// maxChangeLength returns an upper bound of the bytes that a change has in a message, with the description of its table.
func (e *encoder) maxChangeLength(c *cdc.Change) int {
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
			if isKey(c.Relation, i) { // it is in the key, too
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

// jsonLength returns the length of the message so far, including strings that are quoted later.
func (e *encoder) jsonLength() int {
	n := len(e.buffer)
	for _, one := range e.large {
		n += quotedLength(one.text)
	}
	return n
}

// hasRoomFor reports whether a change fits into the current message.
func (e *encoder) hasRoomFor(c *cdc.Change) bool {
	return e.filter.maxMessage == 0 || e.jsonLength()+e.maxChangeLength(c)+messageOverhead <= e.filter.maxMessage
}

// chooseChunked chooses the largest values of a change to send in chunks, until the rest fits into a message. It fails if that is not
// enough, or the client has not asked for chunks.
func (e *encoder) chooseChunked(c *cdc.Change) error {
	e.chunked = chunkedValues{change: c}
	length := e.maxChangeLength(c) + messageOverhead
	if length <= e.filter.maxMessage {
		return nil
	}
	for e.filter.canChunk && c.Relation != nil && length > e.filter.maxMessage {
		largest := chunkedValue{column: -1}
		for _, row := range []struct {
			values []cdc.Value
			old    bool
		}{{c.New, false}, {c.Old, true}} {
			for i, v := range row.values {
				if !isKey(c.Relation, i) && len(v.Text) > len(largest.text) && e.chunked.findNumber(c, row.old, i) == 0 {
					largest = chunkedValue{column: i, isOld: row.old, text: v.Text}
				}
			}
		}
		if len(largest.text) < chunkOverhead {
			break
		}
		e.chunkedCount++
		largest.number = e.chunkedCount
		e.chunked.values = append(e.chunked.values, largest)
		length -= quotedLength(largest.text) - 2*quotedLength(c.Relation.Columns[largest.column].Name) - 64
	}
	if length > e.filter.maxMessage {
		return e.tooLargeError(c, length)
	}
	return nil
}

// tooLargeError returns the error for a change that does not fit.
func (e *encoder) tooLargeError(c *cdc.Change, length int) error {
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
		of = fmt.Sprintf("%s %s of %s (%s)", articleFor(c.Kind), c.Kind, c.Relation.Name(), strings.Join(key, ", "))
	}
	text := fmt.Sprintf("%s at %s takes %d bytes, and the client takes %d (max_message): connect again with a larger limit", of, c.LSN, length, e.filter.maxMessage)
	if c.Relation != nil && !e.filter.canChunk {
		text += ", or with large=chunks"
	}
	return newProblem(http.StatusRequestEntityTooLarge, "too_large", text)
}

func articleFor(kind cdc.Kind) string {
	if kind == cdc.KindInsert || kind == cdc.KindUpdate {
		return "an"
	}
	return "a"
}

// sendChunks sends the chunks of a change's values, before the part that has the change.
func (s *session) sendChunks(t *cdc.Transaction) error {
	e := newEncoder(nil)
	for _, v := range s.encoder.chunked.values {
		rest := v.text
		for number := 0; len(rest) > 0; number++ {
			piece := cutToFit(rest, s.encoder.filter.maxMessage-chunkOverhead)
			rest = rest[len(piece):]
			e.reset()
			e.writeText(`{"type":"value","lsn":`)
			e.writeLSN(t.EndLSN)
			e.writeText(`,"value":`)
			e.writeNumber(uint64(v.number)) //nolint:gosec // it is positive
			e.writeText(`,"chunk":`)
			e.writeNumber(uint64(number))
			e.writeText(`,"text":`)
			e.writeString(piece)
			e.writeText(`,"final":`)
			e.writeBool(len(rest) == 0)
			e.writeText(`}`)
			if err := s.sendMessage("value", e.toFrame(), ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// cutToFit returns the beginning of a text that has at most so many bytes as a JSON string.
func cutToFit(s string, bytes int) string {
	piece := s[:cutAtRune(s, bytes)]
	for quotedLength(piece) > bytes {
		piece = piece[:cutAtRune(piece, len(piece)/2)]
	}
	return piece
}
