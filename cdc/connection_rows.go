package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5/pgconn"
)

// queryRows returns the rows of a query as texts.
func (c *connection) queryRows(ctx context.Context, sql string, args ...string) (rows [][]Value, err error) {
	rows, _, err = c.queryLimitedRows(ctx, math.MaxInt, math.MaxInt64, sql, args...)
	return rows, err
}

// queryLimitedRows returns at most limit rows, and at most one row more than so many bytes of values. more reports
// whether rows were left.
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

// eachRow calls a function with each row of a query, as texts. Even after such calls it can fail.
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

// readingError wraps an error of reading, and names the missing privilege if that is the reason. Postgres' message
// names the table, also for a policy that a user's query has met or that was created after the table was looked up.
func readingError(err error) error {
	const insufficientPrivilege = "42501"
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == insufficientPrivilege {
		return fmt.Errorf("cdc: reading: the role needs the right to read the table, and BYPASSRLS if a policy hides rows of it: %w", err)
	}
	return fmt.Errorf("cdc: reading: %w", err)
}

// batchRows is the number of rows that share an allocation, and batchBytes about their size.
const (
	batchRows  = 64
	batchBytes = 64 << 10
)

// isLargeRow reports whether a row is too large for a batch, which would copy it once more.
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
			row[i] = Value{State: ValuePresent, Text: string(v)}
		}
	}
	return row
}

// rowBatch allocates several rows at once, which is cheaper. The rows of a page are released together anyway.
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
			values[i] = Value{State: ValuePresent, Text: text[:length]}
			text = text[length:]
		}
	}
	for range b.rows {
		use(values[:b.columns:b.columns])
		values = values[b.columns:]
	}
	b.rows, b.text, b.lengths = 0, b.text[:0], b.lengths[:0]
}
