package wal2json

import (
	"context"

	"github.com/chariot-giving/delta/cdc"
)

// appendSchemaChange appends the change of a table's definition. The plugin's format has no such change; it occurs only
// in streams with [cdc.Config.SchemaChanges].
func (e *Encoder) appendSchemaChange(ctx context.Context, c *cdc.Change) error {
	d, err := e.describeTable(ctx, c.Relation)
	if err != nil {
		return err
	}
	e.appendTable(c.Relation)
	e.out = append(e.out, `,"columnnames":[`...)
	for i, column := range c.Relation.Columns {
		e.out = appendComma(e.out, i)
		e.out = AppendString(e.out, column.Name)
	}
	e.out = append(e.out, `],"columntypes":[`...)
	for i, name := range d.types {
		e.out = append(appendComma(e.out, i), name...)
	}
	e.out = append(e.out, `],"change":`...)
	e.out = AppendString(e.out, c.Schema.String())
	e.out = append(e.out, '}')
	return nil
}

func appendComma(out []byte, i int) []byte {
	if i > 0 {
		out = append(out, ',')
	}
	return out
}
