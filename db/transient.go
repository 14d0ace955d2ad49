package db

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/internal/backoff"
)

const lockNotAvailable = "55P03"

// isLockTimeout reports whether a statement waited for a lock for longer than it may.
func isLockTimeout(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == lockNotAvailable
}

// IsTransient reports whether the database is likely to accept the same statement a little later: the connection broke;
// the server is shutting down, starting, out of resources or no longer the primary; it chose the transaction as a
// victim; or a lock was not released in time.
func IsTransient(err error) bool {
	if errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	return backoff.IsTransientCode(pg.Code)
}

// sleepFor waits, and reports whether ctx is still alive.
func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// IsContended reports whether another transaction made this one fail, by a deadlock or a serialization failure. Nothing
// of it is left, and it may be tried again at once.
func IsContended(err error) bool {
	const serializationFailure, deadlockDetected = "40001", "40P01"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == serializationFailure || pg.Code == deadlockDetected)
}
