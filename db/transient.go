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

// IsTransient reports whether the database may well accept the same statement a little later: the connection broke, the server is
// shutting down, starting, out of resources, or no longer the primary, or it had to choose a victim, or a lock was waited for in vain.
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

// sleepFor waits, and tells whether ctx goes on.
func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// IsContended reports whether a transaction was the victim of another one, by a deadlock or a serialization failure: nothing of it is left, and it may be
// tried again at once.
func IsContended(err error) bool {
	const serializationFailure, deadlockDetected = "40001", "40P01"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == serializationFailure || pg.Code == deadlockDetected)
}
