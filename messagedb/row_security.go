package messagedb

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5/pgconn"
)

// RowSecurityError is a table of which policies of row-level security may hide rows from the role that asks. Nothing was read or written: what a
// policy hides would be missing without an error, and a consumer would pass over it for good.
type RowSecurityError struct {
	// Table has its schema in front, quoted where it must be.
	Table string
	// Role is the one that the statement ran as.
	Role  string
	cause error
}

func (e *RowSecurityError) Error() string {
	return fmt.Sprintf("messagedb: table %s: policies of row-level security may hide rows of it from role %q, which would be missing without an error: "+
		"give the role BYPASSRLS, or ownership of the table without FORCE ROW LEVEL SECURITY", e.Table, e.Role)
}

// Unwrap gives the server's own error, a *pgconn.PgError.
func (e *RowSecurityError) Unwrap() error { return e.cause }

// buildUnfilteredCheck returns an SQL expression that is true, or fails where policies may hide rows of a table. An expression cannot raise an error with
// a chosen text, so it reads a setting that cannot exist and has the explanation as its name. Put the expression where it is always evaluated: in an
// argument or in the single row of a result. In a WHERE, the planner may drop it because a policy hides all rows.
//
// Rejected: the setting row_security, with which Postgres refuses such a statement itself, since it is looked at when a statement is planned, which is
// before the statement can set it, and a transaction of the caller's would keep it; and to look once for each connection, which would miss SET ROLE and
// policies that are made later.
func buildUnfilteredCheck(table string) string {
	return fmt.Sprintf("CASE WHEN pg_catalog.row_security_active(%s::pg_catalog.regclass) THEN pg_catalog.current_setting(%s || current_user || '>') IS NULL ELSE true END",
		quoteLiteral(table), quoteLiteral("messagedb row security <"+table+"> <"))
}

// refuseFiltered asks for [buildUnfilteredCheck] alone, for statements that have no place for it.
func (c *Client) refuseFiltered(ctx context.Context, about call) error {
	var is bool
	return c.explainError(c.scanRow(ctx, []any{&is}, c.sql.unfiltered), about)
}

var filtered = regexp.MustCompile(`(?s)messagedb row security <(.*)> <(.*)>`)

// asRowSecurity finds the error of the condition [buildUnfilteredCheck], nil if it is another one.
func asRowSecurity(err error) *RowSecurityError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != stateNoObject {
		return nil
	}
	m := filtered.FindStringSubmatch(pg.Message)
	if m == nil {
		return nil
	}
	return &RowSecurityError{Table: m[1], Role: m[2], cause: pg}
}
