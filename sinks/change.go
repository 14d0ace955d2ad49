package sinks

import (
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/sinks/internal/jsonobject"
)

// rowKey returns the key of a row across tables: the table and the values of the row's key. It is empty for a table without a replica
// identity, and the table's name for a table without a known key.
func (s *streamSource) rowKey(r *cdc.Relation, values []cdc.Value) string {
	if values == nil || r.Identity == cdc.IdentityNothing {
		return ""
	}
	names := s.keys[r.Name()]
	if names == nil && r.Identity == cdc.IdentityFull {
		return r.Name()
	}
	var key strings.Builder
	key.WriteString(r.Name())
	for i, v := range values {
		if names != nil && !slices.Contains(names, r.Columns[i].Name) || !r.Columns[i].Key {
			continue
		}
		key.WriteByte('/')
		key.WriteString(escapeKey.Replace(v.Text))
	}
	return key.String()
}

// escapeKey makes keys of several columns unambiguous.
var escapeKey = strings.NewReplacer("%", "%25", "/", "%2F")

// changedKey returns the new key of the row if an update has changed it, and "" for every other change.
func (s *streamSource) changedKey(c *cdc.Change) string {
	if c.Kind != cdc.KindUpdate || c.Key == nil && c.Old == nil {
		return ""
	}
	after := make([]cdc.Value, len(c.New))
	before := c.KeyValues()
	for i, v := range c.New {
		if v.State == cdc.ValueUnchanged {
			v = before[i]
		}
		after[i] = v
	}
	key := s.rowKey(c.Relation, after)
	if key == s.rowKey(c.Relation, before) {
		return ""
	}
	return key
}

// changeBody returns a change as JSON. kind is that of the message: an update of a key is a delete and an insert message.
func changeBody(c *cdc.Change, kind cdc.Kind) []byte {
	b := &bodyWriter{}
	b.Open()
	b.String("kind", string(kind))
	if c.Relation != nil {
		b.String("schema", c.Relation.Schema)
		b.String("table", c.Relation.Table)
	}
	switch kind {
	case cdc.KindMessage:
		b.writeContent(c.Message)
	case cdc.KindTruncate:
	case cdc.KindSchema:
		b.writeColumns(c.Relation)
	case cdc.KindDelete:
		b.writeRow("key", c.Relation, c.KeyValues(), true)
		b.writeRow("old", c.Relation, c.Old, false)
	case cdc.KindInsert:
		b.writeRow("key", c.Relation, c.New, true)
		b.writeRow("new", c.Relation, c.New, false)
	default:
		b.writeRow("key", c.Relation, c.KeyValues(), true)
		b.writeRow("new", c.Relation, c.New, false)
		b.writeRow("old", c.Relation, c.Old, false)
	}
	b.writeUnchanged(c, kind)
	b.String("lsn", c.LSN.String())
	b.Close()
	return b.Out
}

// bodyWriter writes one JSON object.
type bodyWriter struct{ jsonobject.Writer }

// writeRow writes the columns that have a value, or only those of the key.
func (b *bodyWriter) writeRow(name string, r *cdc.Relation, row []cdc.Value, keyOnly bool) {
	if row == nil {
		return
	}
	b.Name(name)
	b.Open()
	for i, v := range row {
		c := &r.Columns[i]
		if keyOnly && !c.Key || v.State == cdc.ValueUnchanged {
			continue
		}
		b.Name(c.Name)
		b.Out = v.AppendJSON(b.Out, c.Type)
	}
	b.Close()
}

// writeUnchanged names the columns with large values that an update did not change. Postgres does not send these values.
func (b *bodyWriter) writeUnchanged(c *cdc.Change, kind cdc.Kind) {
	if kind == cdc.KindDelete {
		return
	}
	var names []string
	for i, v := range c.New {
		if v.State == cdc.ValueUnchanged {
			names = append(names, c.Relation.Columns[i].Name)
		}
	}
	b.writeList("unchanged", names)
}

func (b *bodyWriter) writeColumns(r *cdc.Relation) {
	names := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		names[i] = c.Name
	}
	b.writeList("columns", names)
}

func (b *bodyWriter) writeList(name string, values []string) {
	if len(values) > 0 {
		b.Strings(name, values)
	}
}

func (b *bodyWriter) writeContent(m *cdc.Message) {
	b.String("prefix", m.Prefix)
	if utf8.Valid(m.Content) {
		b.String("content", string(m.Content))
		return
	}
	b.String("content_base64", base64.StdEncoding.EncodeToString(m.Content))
}
