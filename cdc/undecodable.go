package cdc

import (
	"errors"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// findBadColumn is the name of the first column of which a row has a text that is not UTF-8, empty where there is none.
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

// hasUTF8Names reports whether all names are UTF-8.
func (r *Relation) hasUTF8Names() bool {
	return utf8.ValidString(r.Schema) && utf8.ValidString(r.Table) &&
		!slices.ContainsFunc(r.Columns, func(c Column) bool { return !utf8.ValidString(c.Name) || !utf8.ValidString(c.Type) })
}

// checkUTF8 sees that the texts of a change are UTF-8.
func (d *decoder) checkUTF8(c *Change) error {
	if !d.isRaw {
		return nil
	}
	if column, bad := findBadColumn(c.Relation, c.New, c.Old, c.Key); bad {
		return &UndecodableError{Table: c.Relation.Name(), Column: column, LSN: c.LSN, XID: c.XID, Err: errNotUTF8}
	}
	return nil
}

// undecodableRows decides which rows of tables that are read are left out because they cannot be decoded.
type undecodableFilter struct {
	at   LSN
	skip func(*UndecodableError) bool // which says so where it does
}

// keepRow reports whether a row is one to be given. It fails where that can neither be given nor left out. t is nil for rows of a statement of somebody's
// own.
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

// skipUndecodable decides whether a row is left out, and says so.
func (s *Stream) skipUndecodable(row *UndecodableError) bool {
	if s.config.SkipUndecodable == nil || !s.config.SkipUndecodable(row) {
		return false
	}
	s.counters.undecodable.Add(1)
	s.config.Logger.Warn("cdc: a row that cannot be decoded is left out", "slot", s.config.Slot, "table", row.Table, "column", row.Column,
		"position", row.LSN.String(), "transaction", row.XID, "whole_transaction", row.WholeTransaction, "reason", row.Err)
	return true
}

// undecodableRows is what is asked of the rows of a snapshot.
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

// associated is the position that the server names, in any language, at the end of the context of an error of decoding.
var errorPosition = regexp.MustCompile(`([0-9A-F]{1,8}/[0-9A-F]{1,8})\s*$`)

// undecodableChange makes an error of the server that of a change which it cannot decode, nil where it is none.
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

// undecodedTransaction is one of which Postgres cannot decode a row, and gives nothing behind it. Where it begins, pgoutput says where its commit stands:
// what starts just behind that leaves the transaction out, and no other. commit is zero where the transaction did not begin, because Postgres
// streams it before its commit, or because no row of it was to be sent before.
type undecodedTransaction struct {
	row    *UndecodableError
	commit LSN
}

func (e *undecodedTransaction) Error() string { return e.row.Error() }

func (e *undecodedTransaction) Unwrap() error { return e.row }

// errUnbounded is why a transaction cannot be left out.
var errUnbounded = errors.New("it cannot be left out: Postgres says where a transaction ends with its first row, and could not decode that")

// resumeAfterUndecodable has the next connection begin behind a transaction that Postgres cannot decode, if that is left out. It returns the error that ends the
// stream otherwise.
func (s *Stream) resumeAfterUndecodable(err error) error {
	var t *undecodedTransaction
	switch {
	case !errors.As(err, &t):
		return err
	case t.commit == 0 && s.protocol > 1: // not before the commit, it begins with where that is
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

// These end a connection, and another one goes on.
var (
	errUnstreamed = errors.New("cdc: the server cannot decode a row of a transaction that is not complete: it is to send whole transactions")
	errWentAround = errors.New("cdc: the stream goes on behind a transaction that the server cannot decode")
)
