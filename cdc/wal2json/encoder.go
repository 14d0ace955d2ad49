// Package wal2json writes transactions of the package cdc like the plugin wal2json, with its format version 1 and the
// option include-lsn: byte for byte the same, without a plugin on the server.
//
//	{"nextlsn":"0/170FCB0","change":[{"kind":"insert","schema":"public","table":"t","columnnames":["id"],
//	 "columntypes":["integer"],"columnvalues":[3]}]}
//
// Transactions without changes and generated columns, which the plugin writes, are missing, because pgoutput does not
// send them. In two cases the plugin's output is not JSON, and this package's is: names of types with two quoted parts,
// and messages outside of transactions.
package wal2json

import (
	"context"
	"fmt"
	"io"

	"github.com/chariot-giving/delta/cdc"
)

// flushSize is the size at which output is written, in bytes.
const flushSize = 32 << 10

// Encoder writes the transactions of one stream. It belongs to one goroutine.
type Encoder struct {
	types  Types
	tables map[uint32]*describedTable
	out    []byte
}

// describedTable is a table with the names of its columns' types.
type describedTable struct {
	relation *cdc.Relation
	types    [][]byte // encoded
}

// NewEncoder returns an encoder that asks types for the names of types, once for each description of a table.
func NewEncoder(types Types) *Encoder {
	return &Encoder{types: types, tables: map[uint32]*describedTable{}}
}

// Encode reads the changes of a transaction and writes it, in several pieces if it is large. It fails with an error of
// the transaction, of the writer, or of Types; the output is incomplete then.
func (e *Encoder) Encode(ctx context.Context, w io.Writer, t *cdc.Transaction) error {
	e.out = e.out[:0]
	if t.XID != 0 {
		e.out = append(e.out, `{"nextlsn":"`...)
		e.out = append(e.out, t.EndLSN.String()...)
		e.out = append(e.out, `","change":[`...)
	} else { // the plugin writes no position for a message outside of transactions
		e.out = append(e.out, `{"change":[`...)
	}
	comma := false
	for change, err := range t.Changes() {
		if err != nil {
			return err
		}
		if !isWritten(change) {
			continue
		}
		if comma {
			e.out = append(e.out, ',')
		}
		comma = true
		if err := e.appendChange(ctx, change); err != nil {
			return err
		}
		if len(e.out) >= flushSize {
			if _, err := w.Write(e.out); err != nil {
				return err
			}
			e.out = e.out[:0]
		}
	}
	e.out = append(e.out, `]}`...)
	_, err := w.Write(e.out)
	return err
}

// isWritten reports whether the format has such a change: it has no truncates, and no updates and deletes of tables
// without a replica identity.
func isWritten(c *cdc.Change) bool {
	switch c.Kind {
	case cdc.KindUpdate, cdc.KindDelete:
		for _, column := range c.Relation.Columns {
			if column.Key {
				return true
			}
		}
		return false
	case cdc.KindInsert, cdc.KindMessage, cdc.KindSchema:
		return true
	default:
		return false
	}
}

// appendTable appends the name of a table, after the kind of a change.
func (e *Encoder) appendTable(r *cdc.Relation) {
	e.out = append(e.out, `","schema":`...)
	e.out = AppendString(e.out, r.Schema)
	e.out = append(e.out, `,"table":`...)
	e.out = AppendString(e.out, r.Table)
}

func (e *Encoder) appendChange(ctx context.Context, c *cdc.Change) error {
	e.out = append(e.out, `{"kind":"`...)
	e.out = append(e.out, c.Kind...)
	if c.Kind == cdc.KindMessage {
		e.appendMessage(c.Message)
		return nil
	}
	if c.Kind == cdc.KindSchema {
		return e.appendSchemaChange(ctx, c)
	}
	d, err := e.describeTable(ctx, c.Relation)
	if err != nil {
		return err
	}
	e.appendTable(c.Relation)
	if c.New != nil {
		e.out = append(e.out, ',')
		e.appendColumns(d, c.New, "column", func(v cdc.Value, _ cdc.Column) bool { return v.State != cdc.ValueUnchanged })
	}
	if c.Kind != cdc.KindInsert {
		e.out = append(e.out, `,"oldkeys":{`...)
		switch {
		case c.Old != nil:
			e.appendColumns(d, c.Old, "key", func(v cdc.Value, _ cdc.Column) bool { return v.State == cdc.ValuePresent })
		case c.Key != nil:
			e.appendColumns(d, c.Key, "key", func(v cdc.Value, _ cdc.Column) bool { return v.State == cdc.ValuePresent })
		default: // the key has not changed
			e.appendColumns(d, c.New, "key", func(v cdc.Value, column cdc.Column) bool { return column.Key && v.State == cdc.ValuePresent })
		}
		e.out = append(e.out, '}')
	}
	e.out = append(e.out, '}')
	return nil
}

// appendColumns appends the names, types and values of the columns for which keep is true, as three lists.
func (e *Encoder) appendColumns(d *describedTable, row []cdc.Value, prefix string, keep func(cdc.Value, cdc.Column) bool) {
	for part := range 3 {
		if part > 0 {
			e.out = append(e.out, ',')
		}
		e.out = append(append(e.out, '"'), prefix...)
		e.out = append(e.out, [...]string{`names":[`, `types":[`, `values":[`}[part]...)
		comma := false
		for i, column := range d.relation.Columns {
			if !keep(row[i], column) {
				continue
			}
			if comma {
				e.out = append(e.out, ',')
			}
			comma = true
			switch part {
			case 0:
				e.out = AppendString(e.out, column.Name)
			case 1:
				e.out = append(e.out, d.types[i]...)
			default:
				e.out = AppendValue(e.out, column.TypeOID, row[i])
			}
		}
		e.out = append(e.out, ']')
	}
}

func (e *Encoder) appendMessage(m *cdc.Message) {
	e.out = append(e.out, `","transactional":`...)
	if m.Transactional {
		e.out = append(e.out, `true`...)
	} else {
		e.out = append(e.out, `false`...)
	}
	e.out = append(e.out, `,"prefix":`...)
	e.out = AppendString(e.out, m.Prefix)
	e.out = append(e.out, `,"content":`...)
	e.out = AppendString(e.out, string(m.Content))
	e.out = append(e.out, '}')
}

// describeTable returns the names of the types of a table. It asks again if the server has described the table again.
func (e *Encoder) describeTable(ctx context.Context, r *cdc.Relation) (*describedTable, error) {
	if d := e.tables[r.OID]; d != nil && d.relation == r {
		return d, nil
	}
	names, err := e.types(ctx, r.Columns)
	if err == nil && len(names) != len(r.Columns) {
		err = fmt.Errorf("%d names for %d columns", len(names), len(r.Columns))
	}
	if err != nil {
		return nil, fmt.Errorf("wal2json: the types of table %s: %w", r.Name(), err)
	}
	d := &describedTable{relation: r}
	for _, name := range names {
		d.types = append(d.types, appendType(nil, name))
	}
	e.tables[r.OID] = d
	return d, nil
}
