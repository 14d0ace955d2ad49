package server

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/chariot-giving/delta/cdc"
)

// A transaction goes out in parts of about so much, so that none is ever whole in memory here.
const (
	partChanges = 1000
	partBytes   = 256 << 10
)

// encoder writes the JSON of transactions and pages. It remembers which tables it has described to the client.
type encoder struct {
	buffer []byte
	large  []largeString // what stands within the buffer
	filter *filter
	tables map[uint32]*described

	changes int
	part    int
	fresh   []*cdc.Relation // to be described with this part
	apart   apart           // values of the latest change that were sent before it
	values  int             // how many values were, since the client has come
}

// described is a table as the client knows it.
type described struct {
	relation *cdc.Relation
	wanted   bool
	told     bool
}

func newEncoder(f *filter) *encoder { return &encoder{filter: f, tables: map[uint32]*described{}} }

func (e *encoder) text(s string) { e.buffer = append(e.buffer, s...) }

// string writes a JSON string. What is not UTF-8, which only a database without an encoding holds, is replaced.
func (e *encoder) string(s string) {
	if len(s) >= largeText {
		e.large = append(e.large, largeString{len(e.buffer), s})
		return
	}
	e.buffer, _ = jsontext.AppendQuote(e.buffer, s)
}

func (e *encoder) boolean(b bool) { e.buffer = strconv.AppendBool(e.buffer, b) }

func (e *encoder) number(n uint64) { e.buffer = strconv.AppendUint(e.buffer, n, 10) }

func (e *encoder) lsn(l cdc.LSN) {
	e.text(`"`)
	e.hex(uint64(l >> 32))
	e.text(`/`)
	e.hex(uint64(l & 0xffffffff))
	e.text(`"`)
}

// hex writes the digits as Postgres prints them.
func (e *encoder) hex(n uint64) {
	from := len(e.buffer)
	e.buffer = strconv.AppendUint(e.buffer, n, 16)
	for i, b := range e.buffer[from:] {
		if b >= 'a' {
			e.buffer[from+i] = b - 'a' + 'A'
		}
	}
}

// begin starts the first part of a transaction, or the next.
func (e *encoder) begin(t *cdc.Transaction) {
	e.clear()
	e.changes, e.fresh = 0, e.fresh[:0]
	e.text(`{"type":"transaction","xid":`)
	e.number(uint64(t.XID))
	e.text(`,"lsn":`)
	e.lsn(t.EndLSN)
	if !t.CommitTime.IsZero() {
		e.text(`,"commit_time":"`)
		e.buffer = t.CommitTime.AppendFormat(e.buffer, time.RFC3339Nano)
		e.text(`"`)
	}
	if t.Origin != "" {
		e.text(`,"origin":`)
		e.string(t.Origin)
	}
	e.text(`,"part":`)
	e.number(uint64(e.part)) //nolint:gosec // it is positive
	e.text(`,"changes":[`)
}

// frame is what was written.
func (e *encoder) frame() frame { return frame{e.buffer, e.large} }

// clear begins another message, and lets go of the values of the one before.
func (e *encoder) clear() {
	clear(e.large)
	e.buffer, e.large = e.buffer[:0], e.large[:0]
}

// bytes is about how much was written.
func (e *encoder) bytes() int {
	n := len(e.buffer)
	for _, one := range e.large {
		n += len(one.text)
	}
	return n
}

// full tells that the part is large enough, or that a table has changed whose former description it goes by.
func (e *encoder) full(c *cdc.Change) bool {
	if e.changes == 0 {
		return false
	}
	if e.changes >= partChanges || e.bytes() >= partBytes {
		return true
	}
	if c.Relation == nil {
		return false
	}
	known := e.tables[c.Relation.OID]
	return known != nil && known.told && known.relation != c.Relation && !same(known.relation, c.Relation)
}

// end closes a part. token is where the client can go on behind the last one, if it can.
func (e *encoder) end(final bool, token string) {
	e.text(`]`)
	if len(e.fresh) > 0 {
		e.text(`,"tables":[`)
		for i, r := range e.fresh {
			if i > 0 {
				e.text(`,`)
			}
			e.relation(r)
		}
		e.text(`]`)
	}
	e.part++
	e.text(`,"final":`)
	e.boolean(final)
	if token != "" {
		e.text(`,"resume":`)
		e.string(token)
	}
	e.text(`}`)
}

// wants asks the filter, once for each description of a table.
func (e *encoder) wants(c *cdc.Change) bool {
	if !e.filter.kinds[c.Kind] {
		return false
	}
	if c.Relation == nil {
		return true
	}
	known := e.tables[c.Relation.OID]
	if known == nil || known.relation != c.Relation && known.relation.Name() != c.Relation.Name() {
		known = &described{relation: c.Relation, wanted: e.filter.wants(c.Relation.Name())}
		e.tables[c.Relation.OID] = known
	}
	return known.wanted
}

// describe has a table told of before its first change, and when it has changed.
func (e *encoder) describe(r *cdc.Relation) {
	known := e.tables[r.OID]
	if known.told && (known.relation == r || same(known.relation, r)) {
		known.relation = r
		return
	}
	known.relation, known.told = r, true
	e.fresh = append(e.fresh, r)
}

func same(a, b *cdc.Relation) bool {
	if a.Schema != b.Schema || a.Table != b.Table || a.Identity != b.Identity || len(a.Columns) != len(b.Columns) {
		return false
	}
	for i := range a.Columns {
		if a.Columns[i] != b.Columns[i] {
			return false
		}
	}
	return true
}

func (e *encoder) relation(r *cdc.Relation) {
	e.text(`{"schema":`)
	e.string(r.Schema)
	e.text(`,"table":`)
	e.string(r.Table)
	e.text(`,"columns":`)
	e.columns(r)
	e.text(`}`)
}

func (e *encoder) columns(r *cdc.Relation) {
	e.text(`[`)
	for i, c := range r.Columns {
		if i > 0 {
			e.text(`,`)
		}
		e.text(`{"name":`)
		e.string(c.Name)
		e.text(`,"type":`)
		e.string(c.Type)
		if c.Key && r.Identity != cdc.IdentityFull {
			e.text(`,"key":true`)
		}
		e.text(`}`)
	}
	e.text(`]`)
}

// change adds one that the filter has let pass.
func (e *encoder) change(c *cdc.Change) {
	if c.Relation != nil && e.filter != nil {
		e.describe(c.Relation)
	}
	if e.changes++; e.changes > 1 {
		e.text(`,`)
	}
	e.text(`{"kind":"`)
	e.text(string(c.Kind))
	e.text(`"`)
	switch c.Kind {
	case cdc.KindMessage:
		e.message(c.Message)
	case cdc.KindTruncate:
		e.name(c.Relation)
		e.text(`,"cascade":`)
		e.buffer = strconv.AppendBool(e.buffer, c.Truncate.Cascade)
		e.text(`,"restart_identity":`)
		e.buffer = strconv.AppendBool(e.buffer, c.Truncate.RestartIdentity)
	default:
		e.name(c.Relation)
		e.key(c)
		e.rows(c)
	}
	e.text(`,"lsn":`)
	e.lsn(c.LSN)
	e.text(`}`)
}

func (e *encoder) name(r *cdc.Relation) {
	e.text(`,"schema":`)
	e.string(r.Schema)
	e.text(`,"table":`)
	e.string(r.Table)
}

// key names the row. Where all columns do, the rows say it already.
func (e *encoder) key(c *cdc.Change) {
	row := c.New
	switch {
	case c.Old != nil:
		row = c.Old
	case c.Key != nil:
		row = c.Key
	}
	if c.Relation.Identity == cdc.IdentityFull || row == nil {
		return
	}
	e.text(`,"key":`)
	e.row(c, row, true)
}

func (e *encoder) rows(c *cdc.Change) {
	if c.New != nil {
		e.text(`,"new":`)
		e.row(c, c.New, false)
	}
	if c.Old != nil {
		e.text(`,"old":`)
		e.row(c, c.Old, false)
	}
	first := true
	for i, v := range c.New {
		if v.State != cdc.Unchanged {
			continue
		}
		if first {
			e.text(`,"unchanged":[`)
		} else {
			e.text(`,`)
		}
		first = false
		e.string(c.Relation.Columns[i].Name)
	}
	if !first {
		e.text(`]`)
	}
	e.chunked(c)
}

// chunked names the values of a change that were sent before it.
func (e *encoder) chunked(c *cdc.Change) {
	if e.apart.change != c || len(e.apart.values) == 0 {
		return
	}
	e.text(`,"chunked":[`)
	for i, v := range e.apart.values {
		if i > 0 {
			e.text(`,`)
		}
		e.text(`{"row":"`)
		if v.old {
			e.text(`old`)
		} else {
			e.text(`new`)
		}
		e.text(`","column":`)
		e.string(c.Relation.Columns[v.column].Name)
		e.text(`,"value":`)
		e.number(uint64(v.number)) //nolint:gosec // it is positive
		e.text(`}`)
	}
	e.text(`]`)
}

// row writes an object of columns, without those that are unchanged or were sent before.
func (e *encoder) row(change *cdc.Change, row []cdc.Value, keyOnly bool) {
	e.text(`{`)
	first := true
	old := len(row) > 0 && len(change.Old) > 0 && &row[0] == &change.Old[0]
	for i, v := range row {
		c := &change.Relation.Columns[i]
		if keyOnly && !c.Key || v.State == cdc.Unchanged || e.apart.find(change, old, i) != 0 {
			continue
		}
		if !first {
			e.text(`,`)
		}
		first = false
		e.string(c.Name)
		e.text(`:`)
		e.value(c.Type, v)
	}
	e.text(`}`)
}

// value writes a value. Types of users have a schema in their names, and domains have the name of what they are made of.
func (e *encoder) value(name string, v cdc.Value) {
	if len(v.Text) >= largeText {
		e.string(v.Text)
		return
	}
	e.buffer = v.AppendJSON(e.buffer, name)
}

func (e *encoder) message(m *cdc.Message) {
	e.text(`,"prefix":`)
	e.string(m.Prefix)
	e.text(`,"transactional":`)
	e.buffer = strconv.AppendBool(e.buffer, m.Transactional)
	if utf8.Valid(m.Content) {
		e.text(`,"content":`)
		e.string(string(m.Content))
		return
	}
	e.text(`,"content_base64":"`)
	e.buffer = base64.StdEncoding.AppendEncode(e.buffer, m.Content)
	e.text(`"`)
}

// page writes one of a snapshot, and leaves its object open.
func (e *encoder) page(p *cdc.Page) {
	e.text(`{"table":`)
	e.relation(p.Relation)
	e.text(`,"rows":[`)
	for _, row := range p.Rows {
		e.change(row)
	}
	e.text(`]`)
}
