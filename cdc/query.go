package cdc

import (
	"context"
	"iter"
	"time"
)

// Query reads what a statement of your own selects, as of the moment of the snapshot: rows of texts, which are as in
// [Snapshot.Rows] and in the stream. args are the texts of its parameters. Names in the statement are those of today. It is
// one statement, and the rows come as they are taken: it keeps one of the connections until the loop has ended. An error is
// the last thing that it yields: [ErrClosed], the context's error, or one of the server, such as for a table of which a policy hides rows
// from the role. It spoils nothing for others.
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
					cancel() // or else the rest would be read
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
