package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/backoff"
)

// CreateSlot makes a slot for [Open]. All transactions that commit from now on will be in its stream. The server keeps
// its WAL from now on, so drop the slot when it is no longer needed. It waits for the transactions that are running. It
// fails with [ErrExists], an [*InvalidError] or an error of the server. If the answer is lost, such as by the end of
// ctx, the slot may exist. CreateSlot then opens a connection like that of db, and takes up to 10 seconds to end the
// server's process, so that the slot is not created later. It cannot do so after a SET ROLE to a role that has no
// privileges of the session's own one.
func CreateSlot(ctx context.Context, db DB, name string, options SlotOptions) (LSN, error) {
	if err := validateSlotName(name); err != nil {
		return 0, err
	}
	if options.Failover {
		if err := requireVersion(ctx, db, 17, FieldFailover, true); err != nil {
			return 0, err
		}
	}
	// Within a transaction, also a pooler executes all statements in the same process of the server.
	tx, err := db.Begin(ctx)
	if err != nil {
		return 0, err
	}
	at, creator, err := createSlot(ctx, tx, name, options)
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err == nil {
		return ParseLSN(at)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), creatorPatience)
	defer cancel()
	conn := tx.Conn()
	isLost := conn.IsClosed()
	_ = tx.Rollback(ctx) // gives the connection back to a pool
	if isLost && creator != "" {
		err = errors.Join(err, endCreator(ctx, name, creator, db, conn.Config()))
	}
	return 0, err
}

// createSlot returns the position of the new slot, and the identity of the server process that creates it, once that is known.
func createSlot(ctx context.Context, tx pgx.Tx, name string, options SlotOptions) (at, creator string, err error) {
	level, err := queryOne[string](ctx, tx, `SELECT current_setting('wal_level')`)
	if err != nil {
		return "", "", err
	}
	if level != "logical" {
		return "", "", newInvalidError(FieldWALLevel, level, "logical: ALTER SYSTEM SET wal_level = 'logical', then restart the server")
	}
	if creator, err = queryOne[string](ctx, tx, ownBackend); err != nil {
		return "", "", err
	}
	call := `$1, 'pgoutput', $2`
	if options.Failover {
		call += `, false, true`
	}
	at, err = queryOne[string](ctx, tx, `SELECT lsn::text FROM pg_create_logical_replication_slot(`+call+`)`, name, options.Temporary)
	if err != nil {
		err = fmt.Errorf("cdc: creating slot %q: %w", name, wrapServerError(err))
	}
	return at, creator, err
}

// endCreator calls endBackend with a new connection, because that of the creation is lost. A pool may have no other: it counts a connection that
// it closes for up to 15 seconds.
func endCreator(ctx context.Context, slot, creator string, db DB, config *pgx.ConnConfig) error {
	conn, err := connectLike(ctx, db, config)
	if err != nil {
		return fmt.Errorf("cdc: ending the process that creates slot %q: %w", slot, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return endBackend(ctx, slot, creator, func(ctx context.Context, sql string) (string, error) { return queryOne[string](ctx, conn, sql) })
}

// connectLike connects as db does, or with the configuration of a connection of it.
func connectLike(ctx context.Context, db DB, config *pgx.ConnConfig) (*pgx.Conn, error) {
	if pool, isPool := db.(*pgxpool.Pool); isPool {
		settings := pool.Config()
		config = settings.ConnConfig
		if settings.BeforeConnect != nil { // the password of the connection may have been replaced
			if err := settings.BeforeConnect(ctx, config); err != nil {
				return nil, err
			}
		}
	}
	return pgx.ConnectConfig(ctx, config)
}

const (
	// backendIdentity distinguishes a server process from all others, including those before a restart. When a process began is null to a role that has no
	// privileges of the session's own one, such as after SET ROLE.
	backendIdentity = `pid || ' ' || coalesce(backend_start::text, '') || ' ' || pg_postmaster_start_time()`
	ownBackend      = `SELECT ` + backendIdentity + ` FROM pg_stat_activity WHERE pid = pg_backend_pid()`
	// creatorPatience is how long ending a server process may take: a busy server needs a while, and the caller's context has ended.
	creatorPatience = 10 * time.Second
)

// endBackend ends the server process that creates a slot, and returns when it is gone. Without this, the process could create the slot after
// the caller has looked for it: the server ignores a request to cancel a command that it has not read yet, and then waits for the running
// transactions, however long these last.
func endBackend(ctx context.Context, slot, identity string, queryValue func(ctx context.Context, sql string) (string, error)) error {
	for {
		found, err := queryValue(ctx, `SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE `+backendIdentity+` = `+quoteLiteral(identity))
		if err == nil && found == "0" {
			return nil
		}
		if err == nil {
			err = backoff.Pause(ctx, blockedInterval)
		}
		if err != nil {
			return fmt.Errorf("cdc: ending the process that creates slot %q: %w", slot, err)
		}
	}
}
