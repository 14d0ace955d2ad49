package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/backoff"
)

// addChange adds a change to the page.
func (r *tableRun[T]) addChange(ctx context.Context, xid uint32, c *cdc.Change) error {
	if c.Relation == nil || (c.Relation.OID != r.state.Table && (c.Relation.Schema != r.config.Schema || c.Relation.Table != r.config.Table)) {
		return nil // a publication may have other tables
	}
	switch c.Kind {
	case cdc.KindSchema:
		return r.changeShape(ctx, c)
	case cdc.KindTruncate:
		r.needRead("it was truncated")
	case cdc.KindMessage:
	case cdc.KindInsert, cdc.KindUpdate, cdc.KindRead, cdc.KindDelete:
		switch {
		case r.query != nil:
			r.noteKeys(xid, c)
		case c.Kind == cdc.KindDelete:
			return r.addGone(ctx, c.Relation, valuesBefore(c))
		default:
			return r.addRow(ctx, xid, c)
		}
	}
	return nil
}

// valuesBefore returns the values of the row before the change that the server has sent; nil if it sent none.
func valuesBefore(c *cdc.Change) []cdc.Value {
	if c.Old != nil {
		return c.Old
	}
	return c.Key
}

// changeShape has the table be read again where other columns are read of it now: rows that were not written since may have other values in them.
func (r *tableRun[T]) changeShape(ctx context.Context, c *cdc.Change) error {
	shape, err := r.describeTable(ctx)
	if err != nil {
		return err
	}
	if c.Schema.Recreated || shape != r.state.Shape {
		r.needRead("its columns have changed: " + c.Schema.String())
	}
	return nil
}

// addGone adds the deletion of a row.
func (r *tableRun[T]) addGone(ctx context.Context, relation *cdc.Relation, values []cdc.Value) error {
	id, err := r.mapping.keyID(relation, values)
	switch {
	case errors.Is(err, ErrNotObject):
		return nil // nor was it one before
	case err != nil && isWhole(err):
		return r.passOver(ctx, err)
	case err != nil:
		// A row that was never taken for this reason. Were it another one, its resource would stay: that is not for a log alone.
		r.page.putChange(keyText(relation, values), 0, delta.FeedChange{Refused: &delta.FeedRefusal{
			ID: keyText(relation, values), Err: fmt.Errorf("the row was deleted, and the id of its object cannot be made of its key: %w", err),
		}})
		return nil
	}
	r.page.putChange(id, len(id), delta.FeedChange{GoneID: id})
	return nil
}

// addRow adds a row as it is now.
func (r *tableRun[T]) addRow(ctx context.Context, xid uint32, c *cdc.Change) error {
	values := fillUnchanged(c.New, c.Old)
	id, keyErr := r.mapping.keyID(c.Relation, values)
	isNamed := keyErr == nil
	if errors.Is(keyErr, errUnchanged) || errors.Is(keyErr, ErrNotObject) {
		keyErr = nil // of a table whose identity are whole rows: the object says
	}
	object, err := r.mapping.makeObject(c.Relation, values)
	if errors.Is(err, errUnchanged) {
		var found bool
		if values, found, err = r.rereadRow(ctx, xid, c.Relation, values); err != nil || !found {
			return err // where it is not there any longer, its deletion comes
		}
		object, err = r.mapping.makeObject(c.Relation, values)
	}
	if err == nil {
		err = errors.Join(keyErr, r.mapping.checkID(c.Relation, values, object))
	}
	if err == nil {
		id, err = objectID(object)
	}
	if old := valuesBefore(c); old != nil && c.Kind == cdc.KindUpdate && (err == nil || isNamed || errors.Is(err, ErrNotObject)) { // otherwise it may be the same object
		if former, err := r.mapping.keyID(c.Relation, old); err == nil && former != id {
			r.page.putChange(former, len(former), delta.FeedChange{GoneID: former})
		}
	}
	if id == "" {
		id = keyText(c.Relation, values)
	}
	isListed := c.Kind == cdc.KindRead
	switch {
	case errors.Is(err, ErrNotObject) && isListed: // the end of the listing finds its resource, within the bounds of deletions
	case errors.Is(err, ErrNotObject):
		r.page.putChange(id, len(id), delta.FeedChange{GoneID: id})
	case err != nil && isWhole(err):
		return r.passOver(ctx, err)
	case err != nil:
		if r.isReading && !isNamed {
			r.unnamed++
		}
		r.page.putChange(id, len(id), delta.FeedChange{Listed: isListed, Refused: &delta.FeedRefusal{ID: id, Err: err}})
	default:
		r.page.putChange(id, sizeOf(values), delta.FeedChange{Listed: isListed, Object: object})
	}
	return nil
}

// passOver passes over a change of the table from when it lacked a column that is read. If it has that by now, the table is read again instead. If not, the
// source cannot go on: every row would be refused.
func (r *tableRun[T]) passOver(ctx context.Context, lacking error) error {
	if _, err := r.describeTable(ctx); err != nil {
		return err
	}
	r.needRead("a change is of when it lacked a column: " + lacking.Error())
	return nil
}

// needRead has the table be read as a whole, also after a crash: what has led to it is confirmed with the next page.
func (r *tableRun[T]) needRead(why string) {
	if r.again == "" {
		r.again = why
	}
	r.state.Read = false
}

// fillUnchanged returns the row after a change. Values that the update did not change come from the row before it, if the server has sent that.
func fillUnchanged(row, old []cdc.Value) []cdc.Value {
	filled := row
	for i := range row {
		if row[i].State == cdc.ValueUnchanged && i < len(old) && old[i].State != cdc.ValueUnchanged {
			if &filled[0] == &row[0] {
				filled = slices.Clone(row)
			}
			filled[i] = old[i]
		}
	}
	return filled
}

func sizeOf(values []cdc.Value) (size int) {
	for i := range values {
		size += len(values[i].Text)
	}
	return size
}

// rereadRow reads a row from the table, because the server has left out large values that an update did not touch. What it finds may be newer than the change,
// and never older: a commit is in the log a moment before others see it, with synchronous replication a long one.
func (r *tableRun[T]) rereadRow(ctx context.Context, xid uint32, relation *cdc.Relation, values []cdc.Value) (row []cdc.Value, found bool, err error) {
	if err := r.awaitVisible(ctx, xid); err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var columns, conditions []string
	args := []any{pgx.QueryResultFormats{pgx.TextFormatCode}}
	for i, c := range relation.Columns {
		columns = append(columns, pgx.Identifier{c.Name}.Sanitize())
		if c.Key {
			args = append(args, values[i].Text)
			conditions = append(conditions, fmt.Sprintf("%s = CAST($%d::text AS %s)", pgx.Identifier{c.Name}.Sanitize(), len(args)-1, typeName(c.Type)))
		}
	}
	rows, err := r.conn.Query(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+pgx.Identifier{r.config.Schema, r.config.Table}.Sanitize()+
		" WHERE "+strings.Join(conditions, " AND "), args...)
	if err != nil {
		return nil, false, r.otherShape(err)
	}
	defer rows.Close()
	if rows.Next() {
		found = true
		row = valuesOf(rows.RawValues())
	}
	rows.Close()
	return row, found, r.otherShape(rows.Err())
}

// otherShape is an error of reading a row. Where the table has other columns by now than the change, it will be read as a whole.
func (r *tableRun[T]) otherShape(err error) error {
	const undefinedColumn = "42703"
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == undefinedColumn {
		r.needRead("its columns have changed since a row was written")
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading a row of table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	return nil
}

// typeName is the name of a type in SQL.
func typeName(name string) string {
	if schema, of, found := strings.Cut(name, "."); found {
		return pgx.Identifier{schema, of}.Sanitize()
	}
	return pgx.Identifier{"pg_catalog", name}.Sanitize()
}

// awaitVisible waits until transactions that are in the log can be seen. The log has the lower half of their ids.
func (r *tableRun[T]) awaitVisible(ctx context.Context, xids ...uint32) error {
	if len(xids) == 0 {
		return nil
	}
	for pauses := backoff.New(time.Millisecond, 100*time.Millisecond); ; {
		visible, err := r.areVisible(ctx, xids)
		if err != nil || visible {
			return err
		}
		if err := backoff.Pause(ctx, pauses.Delay()); err != nil {
			return err
		}
	}
}

func (r *tableRun[T]) areVisible(ctx context.Context, xids []uint32) (visible bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	wide := make([]int64, len(xids))
	for i, xid := range xids {
		wide[i] = int64(xid)
	}
	err = r.conn.QueryRow(ctx, `SELECT bool_and(pg_visible_in_snapshot(((s.near - ((s.near - x.xid) & 4294967295))::text)::xid8, pg_current_snapshot()))
		FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 2147483648 AS near) s, unnest($1::bigint[]) x (xid)`, wide).Scan(&visible)
	if err != nil {
		return false, fmt.Errorf("waiting for transactions %v to be visible: %w", xids, err)
	}
	return visible, nil
}

// describeTable returns the shape of the table as it is now: the parts of it that are read.
func (r *tableRun[T]) describeTable(ctx context.Context) (shape string, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	rows, err := r.conn.Query(ctx, `SELECT a.attname, a.atttypid, format_type(a.atttypid, -1), coalesce(a.attnum = ANY (i.indkey), false)
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
		WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, r.config.Schema, r.config.Table)
	if err != nil {
		return "", fmt.Errorf("reading the columns of table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	relation := &cdc.Relation{Schema: r.config.Schema, Table: r.config.Table}
	relation.Columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c cdc.Column, err error) {
		err = row.Scan(&c.Name, &c.TypeOID, &c.Type, &c.Key)
		return c, err
	})
	if err != nil {
		return "", fmt.Errorf("reading the columns of table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	if r.config.Query == "" {
		return r.mapping.describeShape(relation)
	}
	query, err := r.describeQuery(ctx, relation)
	if err != nil {
		return "", fmt.Errorf("TableConfig.Query over table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	if r.query != nil && r.query.computeDigest() != query.computeDigest() {
		r.keys.clear() // of other columns: the table is read as a whole, because the shape is another one
	}
	r.query = query
	shape, err = r.mapping.describeShape(query.relation)
	return shape + query.computeDigest(), err
}
