package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// page is one of a table: the rows with keys above low and up to high, where these are there.
type pageRange struct {
	low, high []Value
	rows      []*Change
	err       error
	read      chan struct{} // closed when it is
}

// Rows reads a table as it was at the moment of the snapshot: each row once, as a [KindRead], in the order of the primary key,
// or of the replica identity's index where there is none. Pages are read ahead by several connections. Names are what they
// are in the catalog, not quoted. An error is the last thing that it yields: an [*InvalidError] for a table that is not
// there, is in none of the publications, or has no key, a [*RowSecurityError], [ErrClosed], [ErrSnapshotGone], the context's error, or one of the
// server. It spoils nothing for others.
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

// readPages finds where the pages begin, one after the other by the key alone, and has them read at the same time.
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

// queryPageEnd is the key of the last row of the page behind low, nil for the last page.
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

// keyClauses are the names of the key columns, and parameters of their types from a number on.
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

// queryRows asks for rows as texts.
func (c *connection) queryRows(ctx context.Context, sql string, args ...string) (rows [][]Value, err error) {
	rows, _, err = c.queryLimitedRows(ctx, math.MaxInt, math.MaxInt64, sql, args...)
	return rows, err
}

// queryLimitedRows keeps so many rows, and one beyond so many bytes of values at most, and tells whether there were more.
func (c *connection) queryLimitedRows(ctx context.Context, limit int, bytes int64, sql string, args ...string) (rows [][]Value, more bool, err error) {
	err = c.eachRow(ctx, func(row []Value) {
		if len(rows) == limit || bytes <= 0 {
			more = true
			return
		}
		for _, v := range row {
			bytes -= int64(len(v.Text))
		}
		rows = append(rows, row)
	}, sql, args...)
	if err != nil {
		return nil, false, err
	}
	return rows, more, nil
}

// eachRow asks for rows as texts, and calls a function with each, although an error may follow.
func (c *connection) eachRow(ctx context.Context, use func([]Value), sql string, args ...string) error {
	parameters := make([][]byte, len(args))
	for i, a := range args {
		parameters[i] = []byte(a)
	}
	result := c.ExecParams(ctx, sql, parameters, nil, nil, nil)
	some := rowBatch{}
	for result.NextRow() {
		values := result.Values()
		if isLargeRow(values) {
			some.flushRows(use)
			use(copyRow(values))
			continue
		}
		if some.addRow(values); some.isFull() {
			some.flushRows(use)
		}
	}
	some.flushRows(use)
	if _, err := result.Close(); err != nil {
		return readingError(err)
	}
	return nil
}

// readingError adds to an error of reading what the role lacks, where that is the reason. Postgres names the table: also of a policy that a
// statement of somebody's own has met, or that was made after the table was looked up.
func readingError(err error) error {
	const insufficientPrivilege = "42501"
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == insufficientPrivilege {
		return fmt.Errorf("cdc: reading: the role needs the right to read the table, and BYPASSRLS where a policy hides rows of it: %w", err)
	}
	return fmt.Errorf("cdc: reading: %w", err)
}

// batchRows is how many rows share their memory, and batchBytes how many bytes they have about.
const (
	batchRows  = 64
	batchBytes = 64 << 10
)

// isLargeRow reports whether a row is not worth to share memory, in which it would be copied once more.
func isLargeRow(values [][]byte) bool {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	return size > batchBytes
}

func copyRow(values [][]byte) []Value {
	row := make([]Value, len(values))
	for i, v := range values {
		if v != nil {
			row[i] = Value{State: Present, Text: string(v)}
		}
	}
	return row
}

// batch makes rows of several at a time, which is cheaper. The rows of a page are kept together anyway.
type rowBatch struct {
	columns, rows int
	text          []byte
	lengths       []int // -1 for null
}

func (b *rowBatch) addRow(values [][]byte) {
	b.columns = len(values)
	b.rows++
	for _, v := range values {
		length := len(v)
		if v == nil {
			length = -1
		}
		b.text, b.lengths = append(b.text, v...), append(b.lengths, length)
	}
}

func (b *rowBatch) isFull() bool { return b.rows >= batchRows || len(b.text) > batchBytes }

func (b *rowBatch) flushRows(use func([]Value)) {
	text, values := string(b.text), make([]Value, len(b.lengths))
	for i, length := range b.lengths {
		if length >= 0 {
			values[i] = Value{State: Present, Text: text[:length]}
			text = text[length:]
		}
	}
	for range b.rows {
		use(values[:b.columns:b.columns])
		values = values[b.columns:]
	}
	b.rows, b.text, b.lengths = 0, b.text[:0], b.lengths[:0]
}

func addNames(names map[string]bool, text string) (map[string]bool, error) {
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("%w: names %s: %w", ErrProtocol, text, err)
	}
	if names == nil {
		names = map[string]bool{}
	}
	for _, n := range list {
		names[n] = true
	}
	return names, nil
}
