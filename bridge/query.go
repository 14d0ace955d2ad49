package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
)

// queryTimeout bounds one reading of the query, which may join other tables.
const queryTimeout = time.Minute

// keyedQuery is TableConfig.Query, as the database describes it.
type keyedQuery struct {
	sql string
	// key are the columns of the table's key, in the order of the table.
	key []cdc.Column
	// relation has the columns of the query: those of the key first, so that an id of several columns is made as for a row of the table.
	relation *cdc.Relation
}

// describeQuery describes what the query gives at present.
func (r *tableRun[T]) describeQuery(ctx context.Context, table *cdc.Relation) (*keyedQuery, error) {
	q := &keyedQuery{sql: r.config.Query, relation: &cdc.Relation{Schema: table.Schema, Table: table.Table, Identity: cdc.IdentityDefault}}
	for _, c := range table.Columns {
		if c.Key {
			q.key = append(q.key, c)
		}
	}
	if len(q.key) == 0 {
		return nil, errors.New("the table has no primary key, nor an index that is its replica identity")
	}
	// A line of its own for what is around it: the query may end with a comment.
	rows, err := r.conn.Query(ctx, "SELECT * FROM (\n"+q.sql+"\n) AS query LIMIT 0")
	if err != nil {
		return nil, err
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, err
	}
	given := map[string]uint32{}
	for _, f := range rows.FieldDescriptions() {
		if _, twice := given[f.Name]; twice {
			return nil, fmt.Errorf("it gives two columns named %q: name one of them otherwise, with AS", f.Name)
		}
		given[f.Name] = f.DataTypeOID
	}
	for _, c := range q.key {
		switch of, there := given[c.Name]; {
		case !there:
			return nil, fmt.Errorf("it does not give the column %q, which is of the table's key", c.Name)
		case of != c.TypeOID:
			return nil, fmt.Errorf("it gives the column %q, which is of the table's key, as another type than the table's %s: it has to be given as it is", c.Name, c.Type)
		}
		q.relation.Columns = append(q.relation.Columns, c)
	}
	for _, f := range rows.FieldDescriptions() {
		if q.relation.Index(f.Name) < 0 {
			q.relation.Columns = append(q.relation.Columns, cdc.Column{Name: f.Name, TypeOID: f.DataTypeOID})
		}
	}
	return q, nil
}

// computeDigest changes with the query, and with the key of its table.
func (q *keyedQuery) computeDigest() string {
	sum := sha256.Sum256([]byte(q.sql))
	names := make([]string, len(q.key))
	for i, c := range q.key {
		names[i] = c.Name
	}
	return fmt.Sprintf("of query %s by %s", hex.EncodeToString(sum[:8]), strings.Join(names, ","))
}

// buildStatement returns a statement that runs the query for keys. Its parameters are the texts of each column.
func (q *keyedQuery) buildStatement() string {
	columns := make([]string, len(q.relation.Columns))
	for i, c := range q.relation.Columns {
		columns[i] = "query." + pgx.Identifier{c.Name}.Sanitize()
	}
	// Through texts, which any type is read from: pgx need not know the types.
	arrays := make([]string, len(q.key))
	for i, c := range q.key {
		arrays[i] = fmt.Sprintf("CAST($%d::text[] AS %s[])", i+1, c.Type)
	}
	where := columns[0] + " = ANY (" + arrays[0] + ")"
	if len(q.key) > 1 {
		where = "(" + strings.Join(columns[:len(q.key)], ", ") + ") IN (SELECT * FROM unnest(" + strings.Join(arrays, ", ") + "))"
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM (\n" + q.sql + "\n) AS query WHERE " + where
}

// changedKeys are the keys of rows that changed, or that a reading of the table has found, for which the query is not read yet.
type changedKeys struct {
	keys []changedKey
	at   map[string]int
	// xids are the transactions that have changed the rows.
	xids  []uint32
	began time.Time
}

type changedKey struct {
	values []cdc.Value
	// isListed is set while the row was only found, by the reading of the whole table.
	isListed bool
	isFound  bool
}

func (k *changedKeys) isEmpty() bool { return len(k.keys) == 0 }
func (k *changedKeys) isFull() bool  { return len(k.keys) >= pageSize }

// isDue reports whether the keys have waited for long enough for further ones.
func (k *changedKeys) isDue() bool {
	return k.isFull() || (!k.isEmpty() && time.Since(k.began) >= pageAge)
}

func (k *changedKeys) clear() {
	k.keys, k.xids = k.keys[:0], k.xids[:0]
	clear(k.at)
}

// addKey records the key of a row that a transaction has changed, or that was found. id is a text that no other key has.
func (k *changedKeys) addKey(xid uint32, id string, values []cdc.Value, isListed bool) {
	if k.at == nil {
		k.at = map[string]int{}
	}
	if k.isEmpty() {
		k.began = time.Now()
	}
	if !isListed && (len(k.xids) == 0 || k.xids[len(k.xids)-1] != xid) {
		k.xids = append(k.xids, xid)
	}
	if i, there := k.at[id]; there {
		k.keys[i].isListed = k.keys[i].isListed && isListed // a change that came meanwhile is more than a row that is found
		return
	}
	k.at[id] = len(k.keys)
	k.keys = append(k.keys, changedKey{values: values, isListed: isListed})
}

// noteKeys notes the keys of the row before and after a change: the query is read for them when the page is written.
func (r *tableRun[T]) noteKeys(xid uint32, c *cdc.Change) {
	old := valuesBefore(c)
	for _, row := range [][]cdc.Value{old, fillUnchanged(c.New, old)} {
		if row == nil {
			continue
		}
		values := make([]cdc.Value, len(r.query.key))
		for i, column := range r.query.key {
			at := c.Relation.Index(column.Name)
			if at < 0 || at >= len(row) || row[at].State != cdc.ValuePresent {
				r.needRead(fmt.Sprintf("a change does not name the column %q of its key", column.Name))
				return
			}
			values[i] = row[at]
		}
		r.keys.addKey(xid, keyText(r.query.relation, values), values, c.Kind == cdc.KindRead)
	}
}

// readKeys puts what the query gives for the keys that were noted into the page. What it finds may be newer than the changes, and never older. The page may be
// written before all is in it: the position is moved only after that.
func (r *tableRun[T]) readKeys(ctx context.Context) error {
	if r.keys.isEmpty() {
		return nil
	}
	if err := r.awaitVisible(ctx, r.keys.xids...); err != nil {
		return err
	}
	if err := r.readQuery(ctx); err != nil {
		return err
	}
	width := len(r.query.relation.Columns)
	for _, key := range r.keys.keys {
		if key.isFound || key.isListed {
			continue // the end of a listing finds what has a resource, and is no object, within the bounds of deletions
		}
		row := append(slices.Clone(key.values), make([]cdc.Value, width-len(key.values))...)
		if err := r.addGone(ctx, r.query.relation, row); err != nil {
			return err
		}
	}
	r.keys.clear()
	return nil
}

// readQuery reads the query for the keys that were noted.
func (r *tableRun[T]) readQuery(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	args := []any{pgx.QueryResultFormats{pgx.TextFormatCode}}
	for i := range r.query.key {
		texts := make([]string, len(r.keys.keys))
		for n, key := range r.keys.keys {
			texts[n] = key.values[i].Text
		}
		args = append(args, texts)
	}
	rows, err := r.conn.Query(within, r.query.buildStatement(), args...)
	if err != nil {
		return fmt.Errorf("TableConfig.Query over table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := r.addQueried(ctx, valuesOf(rows.RawValues())); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("TableConfig.Query over table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	return nil
}

// addQueried adds a row that the query has given.
func (r *tableRun[T]) addQueried(ctx context.Context, values []cdc.Value) error {
	id := keyText(r.query.relation, values)
	at, isNoted := r.keys.at[id]
	if !isNoted { // equal to a key that was noted, by a collation: it has changes of its own
		return nil
	}
	key := &r.keys.keys[at]
	if key.isFound {
		r.page.putChange(id, len(id), delta.FeedChange{Listed: key.isListed, Refused: &delta.FeedRefusal{ID: id, Err: errSeveralRows}})
		return nil
	}
	key.isFound = true
	kind := cdc.KindInsert
	if key.isListed {
		kind = cdc.KindRead
	}
	if err := r.addRow(ctx, 0, &cdc.Change{Kind: kind, Relation: r.query.relation, New: values}); err != nil || !r.page.isFull() {
		return err
	}
	return r.writePage(ctx)
}

// errSeveralRows refuses an object of which it is not known which one it is.
var errSeveralRows = errors.New("TableConfig.Query gives several rows of the same key: it must give one at most")

// valuesOf copies what a row of a query has, as text.
func valuesOf(raw [][]byte) []cdc.Value {
	values := make([]cdc.Value, len(raw))
	for i, text := range raw {
		if text != nil {
			values[i] = cdc.Value{State: cdc.ValuePresent, Text: string(text)}
		}
	}
	return values
}
