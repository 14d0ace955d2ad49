package cdc

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// checkEncoding refuses a connection of the caller on which names are not UTF-8. pgx does not set client_encoding, so a
// connection has the encoding of its database unless configured otherwise. The server reports the encoding by itself. A
// DB that is not one of pgx's types is not checked.
func checkEncoding(ctx context.Context, db DB) error {
	var conn *pgx.Conn
	switch db := db.(type) {
	case *pgx.Conn:
		conn = db
	case interface{ Conn() *pgx.Conn }: // a transaction, or a connection of a pool
		conn = db.Conn()
	case interface {
		Acquire(ctx context.Context) (*pgxpool.Conn, error)
	}:
		acquired, err := db.Acquire(ctx)
		if err != nil {
			return err
		}
		defer acquired.Release()
		conn = acquired.Conn()
	}
	if conn == nil {
		return nil
	}
	if encoding := conn.PgConn().ParameterStatus("client_encoding"); encoding != "UTF8" && encoding != "" {
		return newInvalidError(FieldClientEncoding, encoding, "UTF8: put client_encoding=UTF8 into the connection string")
	}
	return nil
}
