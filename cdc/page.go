package cdc

import (
	"context"
	"fmt"
	"slices"
)

// Page is a number of consecutive rows of a table, in the order of its key.
type Page struct {
	// Relation is the table. It is set even if the page has no rows.
	Relation *Relation
	// Rows are of [KindRead].
	Rows []*Change
	// Next is the argument after for the next page: the key of the last row, even if that row was left out. It is nil
	// if no row follows. It is always UTF-8, even if the key is not.
	Next []string
}

// Page reads the rows after a key, or the first rows if after is nil: at most limit, and at most one row more than so
// many bytes of values. It reads the same rows as [Snapshot.Rows], for programs that store how far they have read, and
// fails as that does. If after cannot be a key of the table, the error is an [*InvalidError].
func (s *Snapshot) Page(ctx context.Context, schema, name string, after []string, limit int, bytes int64) (*Page, error) {
	if limit < 1 || limit > 100_000 {
		return nil, newInvalidError(FieldPageSize, limit, "1 to 100000 rows")
	}
	var page *Page
	var wrong error // does not spoil the connection
	read := ""
	err := s.withConnection(ctx, func(conn *connection) error {
		t, err := lookupTable(ctx, conn, schema, name, s.config.Publications)
		if err != nil {
			return err
		}
		if after != nil && len(after) != len(t.key) {
			wrong = newInvalidError(FieldAfter, after, fmt.Sprintf("the %d values of a key of %s", len(t.key), t.relation.Name()))
			return nil
		}
		read = t.from
		s.locks.notePage(read, true)
		s.locks.addLock(conn, t)
		if page, err = t.queryRowsAfter(ctx, conn, after, limit, bytes, s.undecodableRows()); err == nil {
			err = conn.checkNotRewritten(ctx, t.from)
		}
		return err
	})
	if err == nil {
		err = wrong
	}
	if err != nil {
		return nil, err
	}
	if page.Next == nil {
		s.locks.notePage(read, false)
		s.releaseIdleLocks()
	}
	return page, nil
}

func (t *table) queryRowsAfter(ctx context.Context, conn *connection, after []string, limit int, bytes int64, undecodable undecodableFilter) (*Page, error) {
	after = slices.Clone(after)
	if !decodeKey(after) {
		return nil, newInvalidError(FieldAfter, after, "a value of Page.Next")
	}
	var low []Value
	for _, text := range after {
		low = append(low, Value{State: ValuePresent, Text: text})
	}
	names, _ := t.keyClauses(0)
	where, args := t.keyRange(low, nil)
	sql := fmt.Sprintf(`SELECT %s, %s FROM %s%s ORDER BY %s LIMIT %d`, names, t.columns, t.from, where, names, limit+1)
	rows, more, err := conn.queryLimitedRows(ctx, limit, bytes, sql, args...)
	if err != nil {
		return nil, err
	}
	page := &Page{Relation: t.relation}
	for _, row := range rows {
		keep, err := undecodable.keepRow(conn, t, row[len(t.key):])
		if err != nil {
			return nil, err
		}
		if keep {
			page.Rows = append(page.Rows, &Change{Kind: KindRead, Relation: t.relation, New: row[len(t.key):], LSN: undecodable.at})
		}
	}
	if more {
		for _, v := range rows[len(rows)-1][:len(t.key)] {
			page.Next = append(page.Next, v.Text)
		}
		page.Next = encodeKey(page.Next)
	}
	return page, nil
}
