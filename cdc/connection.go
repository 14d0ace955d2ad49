package cdc

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// connection is a connection to a server process, often a walsender. It belongs to one goroutine.
type connection struct {
	*pgconn.PgConn
	version      int
	gatherer     gatherer        // set for a walsender
	intactTables map[string]bool // tables that checkNotRewritten has checked
	isInSnapshot bool            // in a transaction with a snapshot
	// isRaw is set for a database without an encoding: texts arrive as they are stored, and this package has to
	// validate them.
	isRaw bool
}

// Connect opens a connection for statements next to streams and snapshots, with the same settings: values are printed
// alike, and no timeout of a role, a database or the environment applies. before, unless it is nil, is called first
// with a copy of the configuration, like [Config].BeforeConnect. The address of a pooler is refused with an
// [*InvalidError]. The caller closes the connection.
func Connect(ctx context.Context, config *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error) (*pgx.Conn, error) {
	own, err := settings.PrepareConfig(ctx, config, before)
	if err != nil {
		return nil, fmt.Errorf("cdc: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, own)
	if err != nil {
		return nil, connectError(own, err)
	}
	return conn, nil
}

// connectError returns an error of connecting, an [*InvalidError] if the address is that of a pooler.
func connectError(config *pgx.ConnConfig, err error) error {
	if settings.IsPooler(err) {
		return newInvalidError(FieldConn, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))), settings.PoolerRule)
	}
	return fmt.Errorf("cdc: connecting: %w", err)
}

// openConnection opens a connection with this package's settings, to a walsender if replication is set. before, unless
// it is nil, is called first with the configuration.
func openConnection(ctx context.Context, config *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error, replication bool) (*connection, error) {
	own, err := settings.PrepareConfig(ctx, config, before)
	if err != nil {
		return nil, fmt.Errorf("cdc: %w", err)
	}
	c, result := &own.Config, &connection{}
	c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, 64<<10), w)
	}
	if replication {
		c.RuntimeParams["replication"] = "database"
		c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			result.gatherer = gatherer{from: r}
			return pgproto3.NewFrontend(&result.gatherer, w)
		}
	}
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		var server *pgconn.PgError
		if errors.As(err, &server) && (server.Code == "42501" || server.Code == "28000") && replication {
			return nil, fmt.Errorf("cdc: connecting: does the role have REPLICATION (ALTER ROLE … REPLICATION), and pg_hba.conf let it in? %w", err)
		}
		return nil, connectError(own, err)
	}
	result.PgConn = conn
	number, err := result.queryValue(ctx, `SELECT current_setting('server_version_num')`)
	if err == nil {
		result.version, err = strconv.Atoi(number)
	}
	if err == nil && result.version < MinServerVersion {
		err = newInvalidError(FieldServerVersion, number, "Postgres 14 or later")
	}
	if err == nil {
		err = result.disableTranscoding(ctx)
	}
	if err != nil {
		result.close()
		return nil, err
	}
	return result, nil
}

// disableTranscoding makes a database without an encoding send texts as they are stored. Otherwise the server would
// validate them as UTF-8, and an invalid text would end everything that it sends. Here it concerns one row of a known
// table.
func (c *connection) disableTranscoding(ctx context.Context) error {
	const none = "SQL_ASCII"
	if c.ParameterStatus("server_encoding") != none {
		return nil
	}
	if _, err := c.Exec(ctx, `SET client_encoding = `+quoteLiteral(none)).ReadAll(); err != nil {
		return fmt.Errorf("cdc: asking for texts as they are stored: %w", err)
	}
	c.isRaw = true
	return nil
}

func (c *connection) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.Close(ctx)
	<-c.CleanupDone()
}

// queryValue returns the value that a query selects, "" for no row or NULL.
func (c *connection) queryValue(ctx context.Context, sql string) (string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("cdc: asking the server: %w", err)
	}
	if len(results) == 0 || len(results[0].Rows) == 0 {
		return "", nil
	}
	return string(results[0].Rows[0][0]), nil
}

// requireLogical returns an error if the server's wal_level does not allow logical decoding.
func (c *connection) requireLogical(ctx context.Context) error {
	level, err := c.queryValue(ctx, `SELECT current_setting('wal_level')`)
	if err == nil && level != "logical" {
		err = newInvalidError(FieldWALLevel, level, "logical: ALTER SYSTEM SET wal_level = 'logical', then restart the server")
	}
	return err
}

// startReplication starts to stream after the confirmed position, but not before behind, and returns the position.
func (c *connection) startReplication(ctx context.Context, config *Config, confirmed LSN, protocol int, behind LSN) (LSN, error) {
	if err := c.requireLogical(ctx); err != nil {
		return 0, err
	}
	find := c.checkSlot
	if config.Temporary && confirmed == 0 {
		find = c.createTemporary
	}
	at, err := find(ctx, config.Slot, confirmed)
	if err != nil {
		return 0, err
	}
	at = max(at, behind)
	var names []string
	for _, p := range config.Publications {
		names = append(names, quoteIdentifier(p))
		exists, err := c.queryValue(ctx, `SELECT 1 FROM pg_publication WHERE pubname = `+quoteLiteral(p))
		if err != nil {
			return 0, err
		}
		if exists == "" {
			return 0, newInvalidError(FieldPublications, p, "there is no publication of this name in the database")
		}
	}
	args := []string{"proto_version '" + strconv.Itoa(protocol) + "'", "publication_names " + quoteLiteral(strings.Join(names, ",")), "messages 'true'"}
	if protocol > 1 {
		args = append(args, "streaming 'on'")
	}
	err = pglogrepl.StartReplication(ctx, c.PgConn, quoteIdentifier(config.Slot), pglogrepl.LSN(at),
		pglogrepl.StartReplicationOptions{Mode: pglogrepl.LogicalReplication, PluginArgs: args})
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == "55006" {
		return 0, fmt.Errorf("%w: %q: %w", ErrSlotBusy, config.Slot, err)
	}
	if errors.As(err, &server) && server.Code == "42704" { // dropped a moment ago
		return 0, &ResyncError{Slot: config.Slot, Reason: SlotMissing, Detail: server.Message}
	}
	if err != nil {
		return 0, fmt.Errorf("cdc: starting to stream: %w", err)
	}
	return at, nil
}

// createTemporary creates a slot that lives as long as the connection.
func (c *connection) createTemporary(ctx context.Context, name string, _ LSN) (LSN, error) {
	created, err := pglogrepl.ParseCreateReplicationSlot(c.Exec(ctx, "CREATE_REPLICATION_SLOT "+quoteIdentifier(name)+" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"))
	if err != nil {
		return 0, fmt.Errorf("cdc: creating slot %q: %w", name, wrapServerError(err))
	}
	return ParseLSN(created.ConsistentPoint)
}

// checkSlot checks that a slot can deliver all changes since a position, and returns the position to start from. Zero
// means the slot's own position.
func (c *connection) checkSlot(ctx context.Context, name string, confirmed LSN) (LSN, error) {
	text, err := c.queryValue(ctx, `SELECT to_jsonb(s) FROM pg_replication_slots s WHERE slot_name = `+quoteLiteral(name))
	if err != nil {
		return 0, err
	}
	if text == "" {
		return 0, &ResyncError{Slot: name, Reason: SlotMissing, Detail: "there is no slot of this name"}
	}
	var slot struct {
		Plugin, Database    string
		Confirmed           LSN    `json:"confirmed_flush_lsn"`
		Status              string `json:"wal_status"`
		Invalidation        string `json:"invalidation_reason"`
		Conflicting, Active bool
		Synced              bool // a copy of the primary's slot
	}
	if err := json.Unmarshal([]byte(text), &slot); err != nil {
		return 0, fmt.Errorf("%w: slot %s: %w", ErrProtocol, text, err)
	}
	if slot.Synced { // also after the server was promoted
		if standby, err := c.queryValue(ctx, `SELECT pg_is_in_recovery()`); err != nil {
			return 0, err
		} else if standby == "t" {
			return 0, fmt.Errorf("%w: slot %q", ErrStandby, name)
		}
	}
	switch {
	case slot.Plugin != "pgoutput":
		return 0, newInvalidError(FieldSlot, name, "a logical slot with the plugin pgoutput; this one has "+strconv.Quote(slot.Plugin))
	case slot.Status == "lost" || slot.Conflicting || slot.Invalidation != "":
		return 0, &ResyncError{Slot: name, Reason: SlotInvalidated, Detail: strings.TrimSpace("wal_status " + slot.Status + " " + slot.Invalidation)}
	case confirmed == 0:
		return slot.Confirmed, nil
	case slot.Confirmed > confirmed:
		return 0, &ResyncError{Slot: name, Reason: SlotAdvanced, Detail: fmt.Sprintf("it is at %s, and %s was confirmed", slot.Confirmed, confirmed)}
	}
	end, err := c.queryValue(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END`)
	if err != nil {
		return 0, err
	}
	if last, err := ParseLSN(end); err != nil || confirmed > last {
		return 0, errors.Join(err, newInvalidError(FieldStart, confirmed, "no more than the end of the server's log, "+end))
	}
	return confirmed, nil
}

// status is a standby status update, which reports the stream's position to the server.
type status struct {
	// written is the position up to which the server's log was received.
	written LSN
	// fresh is a newly acknowledged position, zero if the server was told before. It is sent as flushed, and only once,
	// because a client that does not acknowledge must not keep Postgres from stopping: a server that shuts down waits
	// until its walsenders' clients have reported everything sent as flushed, but for a client that reports no flush it
	// uses the written position instead. A flush of zero moves no slot (ProcessStandbyReplyMessage and WalSndDone of
	// walsender.c). pglogrepl's SendStandbyStatusUpdate cannot be used, because it replaces the zero.
	fresh LSN
	// confirmed is the acknowledged position, sent each time. It is sent as applied, which affects only the server's
	// measurement of the lag.
	confirmed LSN
}

// sendStatus sends a standby status update, and can request a reply.
func (c *connection) sendStatus(s status, requestReply bool) error {
	data := make([]byte, 0, 34)
	data = append(data, pglogrepl.StandbyStatusUpdateByteID)
	for _, lsn := range []LSN{s.written, s.fresh, s.confirmed} {
		data = binary.BigEndian.AppendUint64(data, uint64(lsn))
	}
	data = binary.BigEndian.AppendUint64(data, uint64(time.Since(postgresEpoch).Microseconds())) //nolint:gosec // it is positive
	if requestReply {
		data = append(data, 1)
	} else {
		data = append(data, 0)
	}
	if err := c.Conn().SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	c.Frontend().Send(&pgproto3.CopyData{Data: data})
	return c.Frontend().Flush()
}
