package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SnapshotConfig configures [CreateSnapshot].
type SnapshotConfig struct {
	// Conn connects to the database, as a role that may replicate and may read the tables. It is copied.
	Conn *pgx.ConnConfig
	// Slot is the name of the slot to be made. There must be none of this name.
	Slot string
	// Publications, where they are given, have only their tables read, and of these what their column lists and row filters
	// leave: what [Open] streams with the same publications. Default: any table, whole.
	Publications []string
	// Failover has the slot kept on standbys too. Postgres 17 and later.
	Failover bool
	// BeforeConnect is as in [Config].
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// SkipUndecodable is as in [Config]. The rows of one snapshot all have its LSN; those of [Snapshot.Query] have no table. By several goroutines at once.
	SkipUndecodable func(*UndecodableError) bool
	// Logger is told of rows that are left out. Default: [slog.Default].
	Logger *slog.Logger
	// PageSize is how many rows are read at a time. Default: 2000; at most 100,000.
	PageSize int
	// Connections is how many read at the same time, all tables together. As many pages of each table that is being read,
	// and two more, are in memory. Default: 4; at most 64.
	Connections int
}

// Snapshot is what the database held at a moment. All that has committed before LSN is in it, and all that commits after
// it is in the stream of its slot. Its methods can be called by any goroutine, Rows also at the same time.
type Snapshot struct {
	// Slot is the new slot.
	Slot string
	// LSN is the moment: what [Config.Start] takes.
	LSN LSN

	config       SnapshotConfig
	exportedName string // the server's, for other connections
	export       *connection
	exporter     string // the server's process of export
	locks        *tableLocks
	idle         chan *connection // nil where a connection is to be made
	close        sync.Once
}

// CreateSnapshot makes a slot, and a snapshot of the moment from which it streams. It waits for the transactions that are
// running. The snapshot lives until [Snapshot.Close], and holds back the server's vacuum as long; the slot stays. A table that is being read
// is locked, as [Snapshot.TableLocks] tells, until it was read to its end: ALTER TABLE waits for it, and everybody who comes later for that. Where a
// snapshot could not be read to its end, drop the slot and begin anew. It fails with [ErrExists], an [*InvalidError] or an
// error of the server.
func CreateSnapshot(ctx context.Context, config SnapshotConfig) (*Snapshot, error) {
	setDefault(&config.PageSize, 2000)
	setDefault(&config.Connections, 4)
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.Conn = config.Conn.Copy()
	conn, err := openConnection(ctx, config.Conn, config.BeforeConnect, true)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Slot: config.Slot, config: config, export: conn, locks: newTableLocks(), idle: make(chan *connection, config.Connections)}
	for range config.Connections {
		s.idle <- nil
	}
	if err := s.createSlot(ctx); err != nil {
		conn.close()
		return nil, err
	}
	return s, nil
}

func (c *SnapshotConfig) validate() error {
	if c.Conn == nil {
		return newInvalidError(FieldConn, "nil", "needed")
	}
	for _, p := range c.Publications {
		if err := validateName(FieldPublications, p); err != nil {
			return err
		}
	}
	switch {
	case c.PageSize < 1 || c.PageSize > 100_000:
		return newInvalidError(FieldPageSize, c.PageSize, "1 to 100000 rows")
	case c.Connections < 1 || c.Connections > 64:
		return newInvalidError(FieldConnections, c.Connections, "1 to 64")
	}
	return validateSlotName(c.Slot)
}

func (s *Snapshot) createSlot(ctx context.Context) error {
	if err := s.export.requireLogical(ctx); err != nil {
		return err
	}
	options := "EXPORT_SNAPSHOT"
	if s.export.version >= 150000 {
		options = "(SNAPSHOT 'export')"
	}
	if s.config.Failover {
		if s.export.version < 170000 {
			return newInvalidError(FieldFailover, true, "Postgres 17 or later")
		}
		options = "(SNAPSHOT 'export', FAILOVER true)"
	}
	var err error
	if s.exporter, err = s.export.queryValue(ctx, `SELECT `+backendIdentity+` FROM pg_stat_activity WHERE pid = pg_backend_pid()`); err != nil {
		return err
	}
	sql := "CREATE_REPLICATION_SLOT " + quoteIdentifier(s.Slot) + " LOGICAL pgoutput " + options
	made, err := pglogrepl.ParseCreateReplicationSlot(s.export.Exec(ctx, sql))
	if err != nil {
		return fmt.Errorf("cdc: creating slot %q with a snapshot: %w", s.Slot, wrapServerError(err))
	}
	s.exportedName = made.SnapshotName
	s.LSN, err = ParseLSN(made.ConsistentPoint)
	return err
}

// holder tells a process of the server from all others, those of before a restart too.
const backendIdentity = `pid || ' ' || backend_start`

// Close ends the snapshot. Nothing can be read from it any more. Close waits for pages that are being read.
func (s *Snapshot) Close() {
	s.close.Do(func() {
		for range s.config.Connections {
			if conn := <-s.idle; conn != nil {
				s.discardConnection(conn)
			}
		}
		close(s.idle)
		s.export.close()
	})
}

// withConnection gives one of the connections, which are in a transaction with the snapshot, to a function. One that has failed is
// not used again, so that others do not fail for it.
func (s *Snapshot) withConnection(ctx context.Context, use func(*connection) error) error {
	var conn *connection
	select {
	case c, open := <-s.idle:
		if !open {
			return fmt.Errorf("cdc: the snapshot of slot %q: %w", s.Slot, ErrClosed)
		}
		conn = c
	case <-ctx.Done():
		return ctx.Err()
	}
	err := ctx.Err()
	if conn == nil && err == nil {
		conn, err = s.joinSnapshot(ctx)
	} else if err == nil && !conn.isInSnapshot {
		err = s.beginTransaction(ctx, conn)
	}
	if err == nil {
		err = use(conn)
	}
	if err != nil && conn != nil {
		s.discardConnection(conn)
		conn = nil
	}
	s.returnConnection(conn)
	return err
}

// joinSnapshot makes a connection that sees the rows that the snapshot saw.
func (s *Snapshot) joinSnapshot(ctx context.Context) (*connection, error) {
	conn, err := openConnection(ctx, s.config.Conn, s.config.BeforeConnect, false)
	if err != nil {
		return nil, err
	}
	if err := s.beginTransaction(ctx, conn); err != nil {
		conn.close()
		return nil, err
	}
	return conn, nil
}

// beginTransaction begins a transaction with the snapshot.
func (s *Snapshot) beginTransaction(ctx context.Context, conn *connection) error {
	_, err := conn.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT `+quoteLiteral(s.exportedName)).ReadAll()
	var server *pgconn.PgError
	if errors.As(err, &server) && (server.Code == "22023" || server.Code == "42704") { // no name of a snapshot, or of none that there is
		err = fmt.Errorf("%w: %w", ErrSnapshotGone, err)
	}
	if err == nil {
		err = s.checkExported(ctx, conn)
	}
	if err != nil {
		return fmt.Errorf("cdc: the snapshot of slot %q: %w", s.Slot, err)
	}
	conn.isInSnapshot = true
	return nil
}

// checkNotRewritten sees, after a table was read, that the snapshot has its rows: ALTER TABLE leaves those of before to nobody where it
// rewrites a table, as does TRUNCATE. From the first time on the table is locked against both, until it was read to its end. Of what a statement of somebody's
// own has read, each time all is looked at.
func (c *connection) checkNotRewritten(ctx context.Context, table string) error {
	if c.intactTables[table] {
		return nil
	}
	name, err := c.queryValue(ctx, `
		SELECT c.oid::regclass FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
		WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'm') AND c.relnamespace <> 'pg_catalog'::regnamespace
			AND c.relfilenode <> pg_relation_filenode(c.oid)
		LIMIT 1`)
	if err == nil && name != "" {
		err = fmt.Errorf("%w: table %s was rewritten or truncated after it", ErrSnapshotGone, name)
	}
	if err == nil && table != "" {
		if c.intactTables == nil {
			c.intactTables = map[string]bool{}
		}
		c.intactTables[table] = true
	}
	return err
}

// checkExported sees that the snapshot is the one that was made: after a restart, or a failover, others get its name.
func (s *Snapshot) checkExported(ctx context.Context, conn *connection) error {
	found, err := conn.queryValue(ctx, `SELECT 1 FROM pg_stat_activity WHERE `+backendIdentity+` = `+quoteLiteral(s.exporter))
	if err == nil && found == "" {
		err = ErrSnapshotGone
	}
	return err
}
