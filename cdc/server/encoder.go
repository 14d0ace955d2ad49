package server

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/chariot-giving/delta/cdc"
)

// A transaction is sent in parts of about this size, so that it is never in memory as a whole.
const (
	partChanges = 1000
	partBytes   = 256 << 10
)

// encoder writes the JSON of transactions and pages. It remembers which tables it has described to the client.
type encoder struct {
	buffer []byte
	large  []largeString // strings to insert into the buffer when it is written
	filter *filter
	tables map[uint32]*describedTable

	changes      int
	part         int
	newTables    []*cdc.Relation // to describe in this part
	chunked      chunkedValues   // values of the latest change, which are sent before the change
	chunkedCount int             // how many values were sent in chunks in this session
}

// describedTable is a table as the client knows it.
type describedTable struct {
	relation    *cdc.Relation
	isWanted    bool
	isDescribed bool
}

func newEncoder(f *filter) *encoder { return &encoder{filter: f, tables: map[uint32]*describedTable{}} }

func (e *encoder) writeText(s string) { e.buffer = append(e.buffer, s...) }

// writeString writes a JSON string. Invalid UTF-8, which only a database with the encoding SQL_ASCII holds, is replaced.
func (e *encoder) writeString(s string) {
	if len(s) >= largeText {
		e.large = append(e.large, largeString{len(e.buffer), s})
		return
	}
	e.buffer, _ = jsontext.AppendQuote(e.buffer, s)
}

func (e *encoder) writeBool(b bool) { e.buffer = strconv.AppendBool(e.buffer, b) }

func (e *encoder) writeNumber(n uint64) { e.buffer = strconv.AppendUint(e.buffer, n, 10) }

func (e *encoder) writeLSN(l cdc.LSN) {
	e.writeText(`"`)
	e.writeHex(uint64(l >> 32))
	e.writeText(`/`)
	e.writeHex(uint64(l & 0xffffffff))
	e.writeText(`"`)
}

// writeHex writes a number as Postgres prints the halves of an LSN.
func (e *encoder) writeHex(n uint64) {
	from := len(e.buffer)
	e.buffer = strconv.AppendUint(e.buffer, n, 16)
	for i, b := range e.buffer[from:] {
		if b >= 'a' {
			e.buffer[from+i] = b - 'a' + 'A'
		}
	}
}

// beginPart starts the first or next part of a transaction.
func (e *encoder) beginPart(t *cdc.Transaction) {
	e.reset()
	e.changes, e.newTables = 0, e.newTables[:0]
	e.writeText(`{"type":"transaction","xid":`)
	e.writeNumber(uint64(t.XID))
	e.writeText(`,"lsn":`)
	e.writeLSN(t.EndLSN)
	if !t.CommitTime.IsZero() {
		e.writeText(`,"commit_time":"`)
		e.buffer = t.CommitTime.AppendFormat(e.buffer, time.RFC3339Nano)
		e.writeText(`"`)
	}
	if t.Origin != "" {
		e.writeText(`,"origin":`)
		e.writeString(t.Origin)
	}
	e.writeText(`,"part":`)
	e.writeNumber(uint64(e.part)) //nolint:gosec // it is positive
	e.writeText(`,"changes":[`)
}

// toFrame returns the message that was written. It is valid until reset.
func (e *encoder) toFrame() frame { return frame{e.buffer, e.large} }

// reset starts another message, and releases the values of the previous one.
func (e *encoder) reset() {
	clear(e.large)
	e.buffer, e.large = e.buffer[:0], e.large[:0]
}

// rawLength returns about how many bytes were written.
func (e *encoder) rawLength() int {
	n := len(e.buffer)
	for _, one := range e.large {
		n += len(one.text)
	}
	return n
}

// isPartFull reports whether the part is large enough, or describes a table that was altered since.
func (e *encoder) isPartFull(c *cdc.Change) bool {
	if e.changes == 0 {
		return false
	}
	if e.changes >= partChanges || e.rawLength() >= partBytes {
		return true
	}
	if c.Relation == nil {
		return false
	}
	known := e.tables[c.Relation.OID]
	return known != nil && known.isDescribed && known.relation != c.Relation && !isSameRelation(known.relation, c.Relation)
}

// endPart ends a part. token is where the client can resume after the last part, if it can.
func (e *encoder) endPart(final bool, token string) {
	e.writeText(`]`)
	if len(e.newTables) > 0 {
		e.writeText(`,"tables":[`)
		for i, r := range e.newTables {
			if i > 0 {
				e.writeText(`,`)
			}
			e.writeRelation(r)
		}
		e.writeText(`]`)
	}
	e.part++
	e.writeText(`,"final":`)
	e.writeBool(final)
	if token != "" {
		e.writeText(`,"resume":`)
		e.writeString(token)
	}
	e.writeText(`}`)
}

// wantsChange applies the filter to a change, and remembers the result for each table.
func (e *encoder) wantsChange(c *cdc.Change) bool {
	if !e.filter.kinds[c.Kind] {
		return false
	}
	if c.Relation == nil {
		return true
	}
	known := e.tables[c.Relation.OID]
	if known == nil || known.relation != c.Relation && known.relation.Name() != c.Relation.Name() {
		known = &describedTable{relation: c.Relation, isWanted: e.filter.wantsTable(c.Relation.Name())}
		e.tables[c.Relation.OID] = known
	}
	return known.isWanted
}

// describeTable adds a table to the part's descriptions before its first change, and again after its schema has changed.
func (e *encoder) describeTable(r *cdc.Relation) {
	known := e.tables[r.OID]
	if known.isDescribed && (known.relation == r || isSameRelation(known.relation, r)) {
		known.relation = r
		return
	}
	known.relation, known.isDescribed = r, true
	e.newTables = append(e.newTables, r)
}

func isSameRelation(a, b *cdc.Relation) bool {
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

func (e *encoder) writeRelation(r *cdc.Relation) {
	e.writeText(`{"schema":`)
	e.writeString(r.Schema)
	e.writeText(`,"table":`)
	e.writeString(r.Table)
	e.writeText(`,"columns":`)
	e.writeColumns(r)
	e.writeText(`}`)
}

func (e *encoder) writeColumns(r *cdc.Relation) {
	e.writeText(`[`)
	for i, c := range r.Columns {
		if i > 0 {
			e.writeText(`,`)
		}
		e.writeText(`{"name":`)
		e.writeString(c.Name)
		e.writeText(`,"type":`)
		e.writeString(c.Type)
		if c.Key && r.Identity != cdc.IdentityFull {
			e.writeText(`,"key":true`)
		}
		e.writeText(`}`)
	}
	e.writeText(`]`)
}

// writeChange writes a change that has passed the filter.
func (e *encoder) writeChange(c *cdc.Change) {
	if c.Relation != nil && e.filter != nil {
		e.describeTable(c.Relation)
	}
	if e.changes++; e.changes > 1 {
		e.writeText(`,`)
	}
	e.writeText(`{"kind":"`)
	e.writeText(string(c.Kind))
	e.writeText(`"`)
	switch c.Kind {
	case cdc.KindMessage:
		e.writeMessage(c.Message)
	case cdc.KindTruncate:
		e.writeTableName(c.Relation)
		e.writeText(`,"cascade":`)
		e.buffer = strconv.AppendBool(e.buffer, c.Truncate.Cascade)
		e.writeText(`,"restart_identity":`)
		e.buffer = strconv.AppendBool(e.buffer, c.Truncate.RestartIdentity)
	default:
		e.writeTableName(c.Relation)
		e.writeKey(c)
		e.writeRows(c)
	}
	e.writeText(`,"lsn":`)
	e.writeLSN(c.LSN)
	e.writeText(`}`)
}

func (e *encoder) writeTableName(r *cdc.Relation) {
	e.writeText(`,"schema":`)
	e.writeString(r.Schema)
	e.writeText(`,"table":`)
	e.writeString(r.Table)
}

// writeKey writes the key of the row. If all columns are the key, the rows already have it.
func (e *encoder) writeKey(c *cdc.Change) {
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
	e.writeText(`,"key":`)
	e.writeRow(c, row, true)
}

func (e *encoder) writeRows(c *cdc.Change) {
	if c.New != nil {
		e.writeText(`,"new":`)
		e.writeRow(c, c.New, false)
	}
	if c.Old != nil {
		e.writeText(`,"old":`)
		e.writeRow(c, c.Old, false)
	}
	first := true
	for i, v := range c.New {
		if v.State != cdc.ValueUnchanged {
			continue
		}
		if first {
			e.writeText(`,"unchanged":[`)
		} else {
			e.writeText(`,`)
		}
		first = false
		e.writeString(c.Relation.Columns[i].Name)
	}
	if !first {
		e.writeText(`]`)
	}
	e.writeChunked(c)
}

// writeChunked names the values of a change that were sent before it.
func (e *encoder) writeChunked(c *cdc.Change) {
	if e.chunked.change != c || len(e.chunked.values) == 0 {
		return
	}
	e.writeText(`,"chunked":[`)
	for i, v := range e.chunked.values {
		if i > 0 {
			e.writeText(`,`)
		}
		e.writeText(`{"row":"`)
		if v.isOld {
			e.writeText(`old`)
		} else {
			e.writeText(`new`)
		}
		e.writeText(`","column":`)
		e.writeString(c.Relation.Columns[v.column].Name)
		e.writeText(`,"value":`)
		e.writeNumber(uint64(v.number)) //nolint:gosec // it is positive
		e.writeText(`}`)
	}
	e.writeText(`]`)
}

// writeRow writes an object of columns, without values that are unchanged or were sent before.
func (e *encoder) writeRow(change *cdc.Change, row []cdc.Value, keyOnly bool) {
	e.writeText(`{`)
	first := true
	old := len(row) > 0 && len(change.Old) > 0 && &row[0] == &change.Old[0]
	for i, v := range row {
		c := &change.Relation.Columns[i]
		if keyOnly && !c.Key || v.State == cdc.ValueUnchanged || e.chunked.findNumber(change, old, i) != 0 {
			continue
		}
		if !first {
			e.writeText(`,`)
		}
		first = false
		e.writeString(c.Name)
		e.writeText(`:`)
		e.writeValue(c.Type, v)
	}
	e.writeText(`}`)
}

// writeValue writes a value. The name of a user's type includes its schema; the name of a domain is that of its base type.
func (e *encoder) writeValue(name string, v cdc.Value) {
	if len(v.Text) >= largeText {
		e.writeString(v.Text)
		return
	}
	e.buffer = v.AppendJSON(e.buffer, name)
}

func (e *encoder) writeMessage(m *cdc.Message) {
	e.writeText(`,"prefix":`)
	e.writeString(m.Prefix)
	e.writeText(`,"transactional":`)
	e.buffer = strconv.AppendBool(e.buffer, m.Transactional)
	if utf8.Valid(m.Content) {
		e.writeText(`,"content":`)
		e.writeString(string(m.Content))
		return
	}
	e.writeText(`,"content_base64":"`)
	e.buffer = base64.StdEncoding.AppendEncode(e.buffer, m.Content)
	e.writeText(`"`)
}

// writePage writes a page of a snapshot, and leaves the object open.
func (e *encoder) writePage(p *cdc.Page) {
	e.writeText(`{"table":`)
	e.writeRelation(p.Relation)
	e.writeText(`,"rows":[`)
	for _, row := range p.Rows {
		e.writeChange(row)
	}
	e.writeText(`]`)
}
