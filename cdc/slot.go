package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DB manages slots and publications: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// ErrExists reports that the name of a new slot or publication is taken.
var ErrExists = errors.New("cdc: it exists")

// ErrNotFound reports a slot or a publication that does not exist.
var ErrNotFound = errors.New("cdc: it does not exist")

// SlotOptions configures a new slot.
type SlotOptions struct {
	// Failover also keeps the slot on standbys, so that the stream can continue after a failover. Postgres 17 and
	// later.
	Failover bool
	// Temporary drops the slot when the connection that made it ends. It is useless with a pool.
	Temporary bool
}

// Slot is a logical slot of this database as the server reports it.
type Slot struct {
	Name   string
	Plugin string
	// Active reports whether a server process, PID, reads the slot. PID is zero otherwise.
	Active bool
	PID    int
	// Confirmed is the position up to which everything was acknowledged, and Restart the one from which the server
	// keeps WAL.
	Confirmed, Restart LSN
	// LagBytes is the WAL from Confirmed to the end of the log, and RetainedBytes the WAL from Restart.
	LagBytes, RetainedBytes int64
	// LagTime is how long the last confirmations took after the server flushed their WAL, as measured by the server. It
	// is zero if a reader has confirmed everything, and nil if it is not known: nothing reads the slot, or its reader
	// has not confirmed anything yet.
	LagTime *time.Duration
	// InactiveTime is the time since the slot was last read. It is nil while the slot is read, and before Postgres 17,
	// which does not record it.
	InactiveTime *time.Duration
	// SafeWALBytes is how much WAL can still be written before max_slot_wal_keep_size may invalidate the slot; negative
	// if that limit is exceeded. It is nil without a limit, and for a lost slot.
	SafeWALBytes *int64
	// Status is the server's wal_status: reserved, extended, unreserved or lost.
	Status string
	// Temporary and Failover are the options of the slot. Failover needs Postgres 17.
	Temporary, Failover bool
}

// Slots lists the logical slots of the database by name, including those of other programs.
func Slots(ctx context.Context, db DB) ([]Slot, error) {
	rows, err := db.Query(ctx, `
		SELECT s.slot_name, s.plugin, s.active, coalesce(s.active_pid, 0), coalesce(s.confirmed_flush_lsn, '0/0')::text,
			coalesce(s.restart_lsn, '0/0')::text,
			coalesce(pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn), 0)::bigint,
			coalesce(pg_wal_lsn_diff(here.lsn, s.restart_lsn), 0)::bigint,
			CASE WHEN NOT s.active THEN NULL
				WHEN s.confirmed_flush_lsn >= here.lsn THEN 0 -- the server keeps its last measurement, because a position is reported once only
				ELSE extract(epoch FROM r.flush_lag) END::float8,
			CASE WHEN NOT s.active THEN extract(epoch FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz) END::float8,
			s.safe_wal_size, coalesce(s.wal_status, ''), s.temporary,
			coalesce((to_jsonb(s) ->> 'failover')::boolean, false)
		FROM pg_replication_slots s
		LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
		CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) here (lsn)
		WHERE s.slot_type = 'logical' AND s.database = current_database()
		ORDER BY s.slot_name`)
	if err != nil {
		return nil, fmt.Errorf("cdc: listing slots: %w", err)
	}
	slots, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Slot, err error) {
		var confirmed, restart string
		var lag, inactive *float64
		err = row.Scan(&s.Name, &s.Plugin, &s.Active, &s.PID, &confirmed, &restart, &s.LagBytes, &s.RetainedBytes, &lag, &inactive,
			&s.SafeWALBytes, &s.Status, &s.Temporary, &s.Failover)
		if err != nil {
			return s, err
		}
		s.LagTime, s.InactiveTime = toDuration(lag), toDuration(inactive)
		if s.Confirmed, err = ParseLSN(confirmed); err != nil {
			return s, err
		}
		s.Restart, err = ParseLSN(restart)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("cdc: listing slots: %w", err)
	}
	return slots, nil
}

// toDuration converts the server's seconds into a duration that is never negative. nil stays nil.
func toDuration(n *float64) *time.Duration {
	if n == nil {
		return nil
	}
	d := time.Duration(max(0, *n) * float64(time.Second))
	return &d
}

// LookupSlot returns the slot of exactly this name. It fails with [ErrNotFound].
func LookupSlot(ctx context.Context, db DB, name string) (Slot, error) {
	if err := validateSlotName(name); err != nil {
		return Slot{}, err
	}
	slots, err := Slots(ctx, db)
	if err != nil {
		return Slot{}, err
	}
	for _, s := range slots {
		if s.Name == name {
			return s, nil
		}
	}
	return Slot{}, fmt.Errorf("%w: slot %q", ErrNotFound, name)
}

// DropSlot drops the slot of exactly this name, if it belongs to this database and has the plugin pgoutput. It fails
// with [ErrNotFound], and with [ErrSlotBusy] while it is being read.
func DropSlot(ctx context.Context, db DB, name string) error {
	slot, err := LookupSlot(ctx, db, name)
	if err != nil {
		return err
	}
	if slot.Plugin != "pgoutput" {
		return newInvalidError(FieldSlot, name, "a slot with the plugin pgoutput; this one belongs to another program")
	}
	if _, err := db.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, name); err != nil {
		return fmt.Errorf("cdc: dropping slot %q: %w", name, wrapServerError(err))
	}
	return nil
}

// requireVersion refuses a feature of a later major version of Postgres.
func requireVersion(ctx context.Context, db DB, major int, field Field, value any) error {
	version, err := queryOne[int](ctx, db, `SELECT current_setting('server_version_num')::int / 10000`)
	if err == nil && version < major {
		err = newInvalidError(field, value, fmt.Sprintf("Postgres %d or later; this is %d", major, version))
	}
	return err
}

func queryOne[T any](ctx context.Context, db DB, sql string, args ...any) (value T, err error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return value, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
}

// wrapServerError wraps errors of the server in the errors of this package that they mean.
func wrapServerError(err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		switch server.Code {
		case "42710":
			return fmt.Errorf("%w: %w", ErrExists, err)
		case "42704":
			return fmt.Errorf("%w: %w", ErrNotFound, err)
		case "55006":
			return fmt.Errorf("%w: %w", ErrSlotBusy, err)
		}
	}
	return err
}
