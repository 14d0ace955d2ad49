package cdc

import (
	"context"
	"iter"
	"time"
)

// Query yields the rows that a statement selects at the moment of the snapshot, as texts of the same form as in
// [Snapshot.Rows] and in the stream. args are its parameters as texts. Names in the statement refer to the current
// catalog. It must be a single statement. Rows are read as they are consumed, so one of the connections is occupied
// until the loop has ended. An error is the last element: [ErrClosed], the context's error, or one of the server, for
// example for a table of which a policy hides rows from the role. It does not affect other loops.
func (s *Snapshot) Query(ctx context.Context, sql string, args ...string) iter.Seq2[[]Value, error] {
	return func(yield func([]Value, error) bool) {
		left, began := false, time.Now()
		err := s.withConnection(ctx, func(conn *connection) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			parameters := make([][]byte, len(args))
			for i, a := range args {
				parameters[i] = []byte(a)
			}
			result := conn.ExecParams(ctx, sql, parameters, nil, nil, nil)
			for result.NextRow() {
				row := copyRow(result.Values())
				keep, err := s.undecodableRows().keepRow(conn, nil, row)
				if err != nil {
					cancel()
					_, _ = result.Close()
					return err
				}
				if !keep {
					continue
				}
				if left = !yield(row, nil); left {
					cancel() // otherwise Close would read the rest
					break
				}
			}
			if _, err := result.Close(); err != nil {
				return readingError(err)
			}
			if err := conn.checkNotRewritten(ctx, ""); err != nil {
				return err
			}
			tables, err := conn.queryRows(ctx, ownLocksQuery)
			if err == nil {
				s.locks.noteQuery(conn, tables, began)
			}
			return err
		})
		if err != nil && !left {
			yield(nil, err)
		}
	}
}
