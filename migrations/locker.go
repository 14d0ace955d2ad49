package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

const (
	// lockPoll is how often a client asks for the lock that another one holds. Goose's own asks once a second at most. None
	// waits in the statement itself: what waits so has a snapshot, for which CREATE INDEX CONCURRENTLY would wait in turn.
	lockPoll = 20 * time.Millisecond
	// lockPatience bounds the wait.
	lockPatience = 5 * time.Minute
)

// sessionLocker has one client at a time migrate a schema. Postgres frees the lock of a connection that ends.
type sessionLocker struct{ id int64 }

// SessionLock waits for the lock.
func (l sessionLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("another client has been migrating the schema for %s", lockPatience))
	defer cancel()
	for {
		var locked bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", l.id).Scan(&locked); err != nil {
			return fmt.Errorf("taking the lock: %w", err)
		}
		if locked {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the lock: %w", context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// SessionUnlock frees the lock.
func (l sessionLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	var unlocked bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", l.id).Scan(&unlocked); err != nil {
		return fmt.Errorf("freeing the lock: %w", err)
	}
	if !unlocked {
		return errors.New("freeing the lock: the session did not have it")
	}
	return nil
}

// ensureTable makes the table of versions under the lock. Goose makes it before it takes the lock: of clients that start at once
// all but one fail, and come again a second later.
func ensureTable(ctx context.Context, db *sql.DB, locker sessionLocker, table string) (err error) {
	store, err := database.NewStore(goose.DialectPostgres, table)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	if there, err := tableExists(ctx, conn, table); err != nil || there {
		return err
	}
	if err := locker.SessionLock(ctx, conn); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locker.SessionUnlock(context.WithoutCancel(ctx), conn)) }()
	if there, err := tableExists(ctx, conn, table); err != nil || there {
		return err
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("making %s: %w", table, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := store.CreateVersionTable(ctx, tx); err != nil {
		return fmt.Errorf("making %s: %w", table, err)
	}
	if err := store.Insert(ctx, tx, database.InsertRequest{Version: 0}); err != nil {
		return fmt.Errorf("making %s: %w", table, err)
	}
	return tx.Commit()
}

func tableExists(ctx context.Context, conn *sql.Conn, table string) (there bool, err error) {
	err = conn.QueryRowContext(ctx, `SELECT EXISTS (
		SELECT FROM pg_class WHERE relname = $1 AND relkind = 'r' AND relnamespace = to_regnamespace(quote_ident(current_schema()))
	)`, table).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("looking for %s: %w", table, err)
	}
	return there, nil
}
