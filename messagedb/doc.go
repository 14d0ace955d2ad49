// Package messagedb is a client of Message DB, the message store in Postgres, on pgx.
package messagedb
