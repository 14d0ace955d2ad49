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
	// Slot is the name of the new slot. No slot of this name may exist.
	Slot string
	// Publications, if given, restrict reading to their tables, column lists and row filters, as [Open] streams them
	// with the same publications. Default: any table, with all columns and rows.
	Publications []string
	// Failover also keeps the slot on standbys. Postgres 17 and later.
	Failover bool
	// BeforeConnect is as in [Config].
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// SkipUndecodable is as in [Config]; several goroutines may call it at once. All rows of a snapshot have the
	// snapshot's LSN, and rows of [Snapshot.Query] have no table.
	SkipUndecodable func(*UndecodableError) bool
	// Logger receives the rows that are left out. Default: [slog.Default].
	Logger *slog.Logger
	// PageSize is the number of rows in a page. Default: 2000; at most 100,000.
	PageSize int
	// Connections is the number of connections that read at the same time, for all tables together. As many pages of
	// each table that is being read, plus two, are in memory. Default: 4; at most 64.
	Connections int
}

// Snapshot is the content of the database at one moment. Everything that has committed before LSN is in it, and
// everything that commits later is in the stream of its slot. Its methods may be called by any goroutine, Rows also
// concurrently.
type Snapshot struct {
	// Slot is the new slot.
	Slot string
	// LSN is the position of the snapshot: the value for [Config.Start].
	LSN LSN

	config       SnapshotConfig
	exportedName string // for SET TRANSACTION SNAPSHOT
	export       *connection
	exporter     string // backendIdentity of export
	locks        *tableLocks
	idle         chan *connection // nil stands for a connection that is not open
	close        sync.Once
}

// CreateSnapshot makes a slot, and a snapshot of the moment at which its stream starts. It waits for the transactions
// that are running. The snapshot lives until [Snapshot.Close], and holds back the server's vacuum for as long; the slot
// stays. Each table is locked while it is being read, see [Snapshot.TableLocks]: ALTER TABLE waits for that lock, and
// all later statements on the table wait for the ALTER TABLE. If a snapshot could not be read to its end, drop the slot
// and start over. It fails with [ErrExists], an [*InvalidError] or an error of the server. If the answer is lost, such as
// by the end of ctx, the slot may exist. CreateSnapshot then takes up to 10 seconds to end the server's process, so that
// the slot is not created later.
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
		isLost := conn.IsClosed()
		conn.close()
		if isLost && s.exporter != "" {
			err = errors.Join(err, s.endExporter(ctx))
		}
		return nil, err
	}
	return s, nil
}

// endExporter calls endBackend with a new connection.
func (s *Snapshot) endExporter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), creatorPatience)
	defer cancel()
	conn, err := openConnection(ctx, s.config.Conn, s.config.BeforeConnect, false)
	if err != nil {
		return fmt.Errorf("cdc: ending the process that creates slot %q: %w", s.Slot, err)
	}
	defer conn.close()
	return endBackend(ctx, s.Slot, s.exporter, conn.queryValue)
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
	if s.exporter, err = s.export.queryValue(ctx, ownBackend); err != nil {
		return err
	}
	sql := "CREATE_REPLICATION_SLOT " + quoteIdentifier(s.Slot) + " LOGICAL pgoutput " + options
	created, err := pglogrepl.ParseCreateReplicationSlot(s.export.Exec(ctx, sql))
	if err != nil {
		return fmt.Errorf("cdc: creating slot %q with a snapshot: %w", s.Slot, wrapServerError(err))
	}
	s.exportedName = created.SnapshotName
	s.LSN, err = ParseLSN(created.ConsistentPoint)
	return err
}

// Close ends the snapshot, after waiting for pages that are being read. Nothing can be read from it afterwards.
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

// withConnection calls a function with a connection that is in a transaction with the snapshot. A connection on which
// the function has failed is not used again, so that later calls do not fail because of it.
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

// joinSnapshot opens a connection that sees the rows of the snapshot.
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
	if errors.As(err, &server) && (server.Code == "22023" || server.Code == "42704") { // not the name of a snapshot, or not of an existing one
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

// checkNotRewritten checks, after a table was read, that no ALTER TABLE or TRUNCATE has rewritten it since the
// snapshot, because a rewritten table looks empty to the snapshot. After the first check the table is locked against
// both until it was read to its end, so later checks are skipped. After a user's query (table is empty), all locked
// tables are checked each time.
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

// checkExported checks that the exporting connection still exists. Otherwise, after a restart or a failover, another
// snapshot can have the same name.
func (s *Snapshot) checkExported(ctx context.Context, conn *connection) error {
	found, err := conn.queryValue(ctx, `SELECT 1 FROM pg_stat_activity WHERE `+backendIdentity+` = `+quoteLiteral(s.exporter))
	if err == nil && found == "" {
		err = ErrSnapshotGone
	}
	return err
}
