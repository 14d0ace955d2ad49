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
	// lockPoll is the time between attempts to take a lock that another client holds; goose's own locker polls at most once a second. The statement itself does
	// not wait for the lock, because it would hold a snapshot, for which CREATE INDEX CONCURRENTLY of the other client would wait in turn.
	lockPoll = 20 * time.Millisecond
	// lockPatience is how long to wait for the lock.
	lockPatience = 5 * time.Minute
)

// sessionLocker lets one client at a time migrate a schema. Postgres releases the lock if its connection ends, so timeouts of the role or the database
// for idle sessions are off until then. Those for statements and locks hold: they guard what others do.
type sessionLocker struct {
	id int64
	// idleTransaction and idleSession are the timeouts that the session had.
	idleTransaction, idleSession string
}

// SessionLock waits for the lock.
func (l *sessionLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("another client has been migrating the schema for %s", lockPatience))
	defer cancel()
	for {
		var locked bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", l.id).Scan(&locked); err != nil {
			return fmt.Errorf("taking the lock: %w", err)
		}
		if locked {
			return l.beIdle(ctx, conn)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the lock: %w", context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// beIdle turns the timeouts of idle sessions off.
func (l *sessionLocker) beIdle(ctx context.Context, conn *sql.Conn) error {
	err := conn.QueryRowContext(ctx, `WITH had AS MATERIALIZED (
			SELECT current_setting('idle_in_transaction_session_timeout') AS in_transaction, current_setting('idle_session_timeout') AS in_session
		)
		SELECT in_transaction, in_session, set_config('idle_in_transaction_session_timeout', '0', false), set_config('idle_session_timeout', '0', false)
		FROM had`).Scan(&l.idleTransaction, &l.idleSession, new(string), new(string))
	if err != nil {
		return fmt.Errorf("turning the timeouts of an idle session off: %w", err)
	}
	return nil
}

// SessionUnlock releases the lock.
func (l *sessionLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	var unlocked bool
	err := conn.QueryRowContext(ctx, `SELECT pg_advisory_unlock($1), set_config('idle_in_transaction_session_timeout', $2, false),
		set_config('idle_session_timeout', $3, false)`, l.id, l.idleTransaction, l.idleSession).Scan(&unlocked, new(string), new(string))
	if err != nil {
		return fmt.Errorf("freeing the lock: %w", err)
	}
	if !unlocked {
		return errors.New("freeing the lock: the session did not have it")
	}
	return nil
}

// ensureTable creates the table of versions under the lock. Goose would create it before it takes the lock, and if several clients start at once, all but one
// would fail and retry a second later.
func ensureTable(ctx context.Context, db *sql.DB, locker *sessionLocker, table string) (err error) {
	store, err := database.NewStore(goose.DialectPostgres, table)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close() //nolint:errcheck // returns the connection to the pool
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
	defer tx.Rollback() //nolint:errcheck // a no-op after a commit
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
