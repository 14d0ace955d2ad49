package cdc

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
)

// pageRange is a page of a table: the rows with keys above low and up to high, if these are set.
type pageRange struct {
	low, high []Value
	rows      []*Change
	err       error
	read      chan struct{} // closed when the page was read
}

// Rows reads a table as it was at the moment of the snapshot: each row once, as a [KindRead], in the order of the
// primary key, or of the replica identity's index if the table has no primary key. Several connections read pages
// ahead. Names are as in the catalog, not quoted. An error is the last element: an [*InvalidError] for a table that
// does not exist, is in none of the publications, or has no key, a [*RowSecurityError], [ErrClosed], [ErrSnapshotGone],
// the context's error, or one of the server. It does not affect other loops.
func (s *Snapshot) Rows(ctx context.Context, schema, name string) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		var t *table
		defer func() {
			if t != nil {
				s.locks.countReading(t.from, -1)
				s.releaseIdleLocks()
			}
		}()
		ctx, cancel := context.WithCancel(ctx)
		var work sync.WaitGroup
		defer work.Wait()
		defer cancel()
		err := s.withConnection(ctx, func(conn *connection) (err error) {
			t, err = lookupTable(ctx, conn, schema, name, s.config.Publications)
			return err
		})
		if err != nil {
			t = nil
			yield(nil, err)
			return
		}
		s.locks.countReading(t.from, 1)
		pages := make(chan *pageRange, s.config.Connections)
		work.Go(func() { s.readPages(ctx, t, pages, &work) })
		for p := range pages {
			<-p.read
			for _, row := range p.rows {
				if !yield(row, nil) {
					return
				}
			}
			if p.err != nil {
				yield(nil, p.err)
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// readPages finds the ends of the pages one after the other, by reading the keys only, and starts to read each page.
func (s *Snapshot) readPages(ctx context.Context, t *table, pages chan<- *pageRange, work *sync.WaitGroup) {
	defer close(pages)
	var low []Value
	for {
		p := &pageRange{low: low, read: make(chan struct{})}
		p.err = s.withConnection(ctx, func(conn *connection) (err error) {
			s.locks.addLock(conn, t)
			if p.high, err = t.queryPageEnd(ctx, conn, low, s.config.PageSize); err == nil {
				err = conn.checkNotRewritten(ctx, t.from)
			}
			return err
		})
		if p.err != nil {
			close(p.read)
		}
		select {
		case pages <- p:
		case <-ctx.Done():
			return
		}
		if p.err != nil {
			return
		}
		work.Go(func() {
			defer close(p.read)
			p.err = s.withConnection(ctx, func(conn *connection) error {
				s.locks.addLock(conn, t)
				rows, err := t.queryPage(ctx, conn, p, s.undecodableRows())
				if err == nil {
					err = conn.checkNotRewritten(ctx, t.from)
				}
				if err == nil {
					p.rows = rows
				}
				return err
			})
		})
		if low = p.high; low == nil {
			return
		}
	}
}

// queryPageEnd returns the key of the last row of the page after low, nil for the last page.
func (t *table) queryPageEnd(ctx context.Context, conn *connection, low []Value, size int) ([]Value, error) {
	names, _ := t.keyClauses(0)
	where, args := t.keyRange(low, nil)
	rows, err := conn.queryRows(ctx, fmt.Sprintf(`SELECT %s FROM %s%s ORDER BY %s OFFSET %d LIMIT 1`, names, t.from, where, names, size-1), args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

func (t *table) queryPage(ctx context.Context, conn *connection, p *pageRange, undecodable undecodableFilter) ([]*Change, error) {
	names, _ := t.keyClauses(0)
	where, args := t.keyRange(p.low, p.high)
	var changes []*Change
	var free []Change
	var bad error
	err := conn.eachRow(ctx, func(row []Value) {
		keep, err := undecodable.keepRow(conn, t, row)
		if bad == nil {
			bad = err
		}
		if !keep {
			return
		}
		if len(free) == 0 {
			free = make([]Change, batchRows)
		}
		change := &free[0]
		free = free[1:]
		change.Kind, change.Relation, change.New, change.LSN = KindRead, t.relation, row, undecodable.at
		changes = append(changes, change)
	}, fmt.Sprintf(`SELECT %s FROM %s%s ORDER BY %s`, t.columns, t.from, where, names), args...)
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	return changes, nil
}

// keyClauses returns the names of the key columns, and parameters of their types, numbered after from.
func (t *table) keyClauses(from int) (names, parameters string) {
	var n, p []string
	for i, k := range t.key {
		n = append(n, k.name)
		p = append(p, fmt.Sprintf("$%d::%s", from+i+1, k.cast))
	}
	return strings.Join(n, ", "), strings.Join(p, ", ")
}

func (t *table) keyRange(low, high []Value) (where string, args []string) {
	var conditions []string
	add := func(operator string, key []Value) {
		if key == nil {
			return
		}
		names, parameters := t.keyClauses(len(args))
		conditions = append(conditions, "("+names+") "+operator+" ("+parameters+")")
		for _, v := range key {
			args = append(args, v.Text)
		}
	}
	add(">", low)
	add("<=", high)
	if t.filter != "" {
		conditions = append(conditions, "("+t.filter+")")
	}
	if len(conditions) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(conditions, " AND "), args
}
