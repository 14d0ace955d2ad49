package cdc

import (
	"errors"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// findBadColumn returns the name of the first column with a text that is not UTF-8; found is false if there is none.
func findBadColumn(relation *Relation, rows ...[]Value) (name string, found bool) {
	for _, row := range rows {
		for i := range row {
			if !utf8.ValidString(row[i].Text) {
				if i < len(relation.Columns) {
					name = relation.Columns[i].Name
				}
				return name, true
			}
		}
	}
	return "", false
}

// hasUTF8Names reports whether all names of the table are UTF-8.
func (r *Relation) hasUTF8Names() bool {
	return utf8.ValidString(r.Schema) && utf8.ValidString(r.Table) &&
		!slices.ContainsFunc(r.Columns, func(c Column) bool { return !utf8.ValidString(c.Name) || !utf8.ValidString(c.Type) })
}

// checkUTF8 checks that the texts of a change are UTF-8.
func (d *decoder) checkUTF8(c *Change) error {
	if !d.isRaw {
		return nil
	}
	if column, bad := findBadColumn(c.Relation, c.New, c.Old, c.Key); bad {
		return &UndecodableError{Table: c.Relation.Name(), Column: column, LSN: c.LSN, XID: c.XID, Err: errNotUTF8}
	}
	return nil
}

// undecodableFilter decides which rows that are read from tables are left out because they cannot be decoded.
type undecodableFilter struct {
	at   LSN
	skip func(*UndecodableError) bool // logs a row that it skips
}

// keepRow reports whether to deliver a row. It fails if the row can be neither delivered nor left out. t is nil for
// rows of a user's query.
func (u undecodableFilter) keepRow(conn *connection, t *table, row []Value) (bool, error) {
	if !conn.isRaw {
		return true, nil
	}
	relation := &Relation{}
	err := &UndecodableError{LSN: u.at, Err: errNotUTF8}
	if t != nil {
		relation, err.Table = t.relation, t.relation.Name()
	}
	var bad bool
	if err.Column, bad = findBadColumn(relation, row); !bad {
		return true, nil
	}
	if u.skip(err) {
		return false, nil
	}
	return false, err
}

// skipError returns nil for a row that cannot be decoded and is left out, and the error otherwise.
func (d *decoder) skipError(err error) error {
	var row *UndecodableError
	if err != nil && d.skip != nil && errors.As(err, &row) && d.skip(row) {
		return nil
	}
	return err
}

// skipUndecodable decides whether a row is left out, and logs it if so.
func (s *Stream) skipUndecodable(row *UndecodableError) bool {
	if s.config.SkipUndecodable == nil || !s.config.SkipUndecodable(row) {
		return false
	}
	s.counters.undecodable.Add(1)
	s.config.Logger.Warn("cdc: a row that cannot be decoded is left out", "slot", s.config.Slot, "table", row.Table, "column", row.Column,
		"position", row.LSN.String(), "transaction", row.XID, "whole_transaction", row.WholeTransaction, "reason", row.Err)
	return true
}

// undecodableRows returns the filter for the rows of the snapshot.
func (s *Snapshot) undecodableRows() undecodableFilter {
	return undecodableFilter{s.LSN, func(row *UndecodableError) bool {
		if s.config.SkipUndecodable == nil || !s.config.SkipUndecodable(row) {
			return false
		}
		s.config.Logger.Warn("cdc: a row of a snapshot that cannot be decoded is left out", "slot", s.Slot, "table", row.Table, "column", row.Column,
			"position", row.LSN.String(), "reason", row.Err)
		return true
	}}
}

// errorPosition matches the position at the end of the context of a decoding error, in any language of the server.
var errorPosition = regexp.MustCompile(`([0-9A-F]{1,8}/[0-9A-F]{1,8})\s*$`)

// undecodableChange returns the error for a change that the server cannot decode, nil if err is another error.
func (r *streamReader) undecodableChange(err *pgconn.PgError) *undecodedTransaction {
	at := errorPosition.FindStringSubmatch(err.Where)
	if at == nil || isTransient(err) {
		return nil
	}
	lsn, parseErr := ParseLSN(at[1])
	if parseErr != nil {
		return nil
	}
	t := &undecodedTransaction{row: &UndecodableError{LSN: lsn, WholeTransaction: true, Err: err}}
	if open := r.assembler.open; open != nil {
		t.row.XID, t.commit = open.XID, open.CommitLSN
	}
	return t
}

// undecodedTransaction reports a transaction of which Postgres cannot decode a row, and of which it sends nothing after
// that row. When a transaction begins, pgoutput sends the position of its commit, and a stream that starts just after
// that position leaves out this transaction and no other. commit is zero if the transaction has not begun, either
// because Postgres streams it before its commit, or because the row is the first one to be sent.
type undecodedTransaction struct {
	row    *UndecodableError
	commit LSN
}

func (e *undecodedTransaction) Error() string { return e.row.Error() }

func (e *undecodedTransaction) Unwrap() error { return e.row }

// errUnbounded is the reason why a transaction cannot be left out.
var errUnbounded = errors.New("it cannot be left out: Postgres sends the end of a transaction with its first row, which it could not decode")

// resumeAfterUndecodable makes the next connection begin after a transaction that Postgres cannot decode, if that is
// left out. Otherwise it returns the error that ends the stream.
func (s *Stream) resumeAfterUndecodable(err error) error {
	var t *undecodedTransaction
	switch {
	case !errors.As(err, &t):
		return err
	case t.commit == 0 && s.protocol > 1: // protocol 1 sends the position of the commit first
		s.protocol = 1
		return errUnstreamed
	case s.config.SkipUndecodable == nil:
		return t.row
	case t.commit == 0:
		t.row.Err = errors.Join(t.row.Err, errUnbounded)
		return t.row
	case !s.skipUndecodable(t.row):
		return t.row
	}
	s.resumeAt = t.commit + 1
	return errWentAround
}

// These errors end a connection, and the stream continues with another one.
var (
	errUnstreamed = errors.New("cdc: the server cannot decode a row of an incomplete transaction, and will be asked for whole transactions")
	errWentAround = errors.New("cdc: the stream continues after a transaction that the server cannot decode")
)
