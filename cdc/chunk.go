package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/internal/backoff"
)

// chunk holds the rows of a table that were read between a low and a high watermark.
type chunk struct {
	number   uint64
	relation *Relation
	rows     [][]Value
	keys     [][]string
	has      map[string]bool     // keys of rows
	reread   map[string][]string // keys of rows that were read again
	lastKey  []string            // the key of the last row in key order, nil without rows
	isLast   bool                // no rows follow
}

// fitsRelation reports whether a row of a relation, as described in the stream, has all columns of the chunk.
func (c *chunk) fitsRelation(relation *Relation) bool {
	if relation == nil {
		return false
	}
	return !slices.ContainsFunc(c.relation.Columns, func(column Column) bool {
		at := relation.Index(column.Name)
		return at < 0 || relation.Columns[at].TypeOID != column.TypeOID || relation.Columns[at].Modifier != column.Modifier
	})
}

// run reads chunks until all are delivered.
func (b *Backfill) run(ctx context.Context, conn *connection) {
	drop := func() {
		if conn != nil {
			conn.close()
			b.noteUnlocked()
			conn = nil
		}
	}
	defer drop()
	config := &b.stream.config
	retry := backoff.New(config.ShortestRetry, config.LongestRetry)
	for number := uint64(1); ; number++ {
		err := b.waitUntil(ctx, func() bool { return !b.paused })
		if err == nil && conn == nil {
			connecting, stop := context.WithTimeout(ctx, config.Timeout)
			conn, err = b.stream.connectWriter(connecting, b.config.Conn)
			stop()
		}
		if err == nil {
			err = b.shrinkChunks(b.readChunk(ctx, conn, number))
		}
		if err == nil {
			retry.Reset()
			if err = b.waitUntil(ctx, func() bool { return b.closed >= number }); err == nil && b.config.Interval > 0 {
				err = backoff.Pause(ctx, b.config.Interval)
			}
		}
		switch {
		case ctx.Err() != nil:
			b.finish(ErrClosed) // no effect if it has finished
			return
		case err == nil:
			continue
		case !isTransient(err):
			config.Logger.Error("cdc: a backfill has failed", "table", b.from, "error", err)
			b.finish(err)
			return
		}
		drop()
		delay := retry.Delay()
		config.Logger.Warn("cdc: a chunk of a backfill could not be read", "table", b.from, "error", err, "retry", delay)
		_ = backoff.Pause(ctx, delay) // the switch above checks the context
	}
}

// waitUntil waits until a condition is true, which is called with b.mu held.
func (b *Backfill) waitUntil(ctx context.Context, is func() bool) error {
	for {
		b.mu.Lock()
		ready := is()
		b.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-b.woken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readChunk reads a chunk between two watermarks. Let l be the position of the low watermark's commit in the log, S the
// snapshot with which the chunk is read, and h the position of the high watermark's commit.
//
// Every transaction that committed before l is visible in S. That is not obvious, because a commit is written to the
// log before it becomes visible, with synchronous replication long before. But a transaction keeps its locks until it
// is visible. So S is taken after all transactions that could write to the table just after l have released it. That
// also covers transactions that wrote before the table was in the publication. The stream lacks their changes.
//
// A transaction that committed between l and h may or may not be visible in S, and is in the stream between the
// watermarks: closeWindow drops or completes its rows. A transaction that commits after h is not visible in S, because
// h is written after S was taken, and is in the stream after the chunk.
//
// From before S until h has committed, the table is locked against nothing but TRUNCATE and changes of its definition.
// So the chunk has the columns that the table has at h, and S sees no table that was rewritten after it.
func (b *Backfill) readChunk(ctx context.Context, conn *connection, number uint64) error {
	b.mu.Lock()
	low, exhausted := b.progress.Key, b.progress.Exhausted
	c := &chunk{number: number, has: map[string]bool{}, reread: map[string][]string{}, isLast: exhausted}
	for text, key := range b.progress.Reread {
		if len(c.reread) == b.chunkSize {
			break
		}
		c.reread[text] = key
	}
	b.mu.Unlock()

	m := watermark{backfill: b.id, chunk: number}
	if err := conn.emitMessage(ctx, prefixWatermark, m.String()); err != nil {
		return err
	}
	if err := b.waitForWriters(ctx, conn); err != nil {
		return err
	}
	limit := fmt.Sprint(b.config.ChunkTimeout.Milliseconds())
	if _, err := conn.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; LOCK TABLE `+b.from+` IN ACCESS SHARE MODE;
		SET LOCAL statement_timeout = `+limit+`; SET LOCAL idle_in_transaction_session_timeout = `+limit).ReadAll(); err != nil {
		return fmt.Errorf("cdc: locking %s: %w", b.from, err)
	}
	b.noteLocked(conn)
	bounded, cancel := context.WithTimeoutCause(ctx, b.config.ChunkTimeout, errSlowChunk)
	defer cancel()
	err := b.readLockedChunk(bounded, conn, c, m, low)
	if err != nil && errors.Is(context.Cause(bounded), errSlowChunk) || isTimeout(err) { // by this process or by Postgres, which enforce the same limit
		err = fmt.Errorf("%w: %w", errSlowChunk, err)
	}
	if err == nil {
		b.noteUnlocked()
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed >= number { // it has committed, although the reply was lost
		return nil
	}
	b.chunk = nil
	return err
}

// errSlowChunk reports that a chunk's transaction has exceeded ChunkTimeout.
var errSlowChunk = errors.New("cdc: the transaction of a chunk lasts longer than ChunkTimeout")

// isTimeout reports whether Postgres has ended a chunk's transaction because of a timeout.
func isTimeout(err error) bool {
	const cancelled, idle = "57014", "25P03"
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == cancelled || server.Code == idle)
}

// shrinkChunks halves the size of the next chunks after a timeout. It fails if a chunk has one row already.
func (b *Backfill) shrinkChunks(err error) error {
	if !errors.Is(err, errSlowChunk) {
		return err
	}
	if b.chunkSize == 1 {
		return newInvalidError(FieldChunkTimeout, b.config.ChunkTimeout, "long enough to read one row of "+b.from)
	}
	b.chunkSize /= 2
	b.stream.config.Logger.Warn("cdc: a chunk of a backfill took too long, and is read again with fewer rows", "table", b.from, "rows", b.chunkSize, "timeout", b.config.ChunkTimeout)
	return err
}

// readLockedChunk reads the rows and writes the high watermark. The table must be locked.
func (b *Backfill) readLockedChunk(ctx context.Context, conn *connection, c *chunk, m watermark, low []string) error {
	t, err := lookupTable(ctx, conn, b.config.Schema, b.config.Table, b.stream.config.Publications)
	if err != nil {
		return err
	}
	columns, err := t.useReplicaIdentity()
	if err != nil {
		return err
	}
	if t.relation.OID != b.oid || !slices.Equal(columns, b.columns) {
		return newInvalidError(FieldTable, t.relation.Name(), "it was recreated, or has another key now: start a new backfill")
	}
	c.relation = t.relation
	if !c.isLast {
		if err := b.readRange(ctx, conn, t, c, low); err != nil {
			return err
		}
	}
	if len(c.reread) > 0 {
		if err := b.rereadRows(ctx, conn, t, c); err != nil {
			return err
		}
	}
	b.mu.Lock()
	if !b.ended {
		b.chunk = c
	}
	b.mu.Unlock()
	m.high = true
	if err := conn.emitMessage(ctx, prefixWatermark, m.String()); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `COMMIT`).ReadAll()
	return err
}

// waitForWriters waits for the end of all transactions that hold a lock, at the time of the first query, with which
// they can write to the table.
func (b *Backfill) waitForWriters(ctx context.Context, conn *connection) error {
	query := fmt.Sprintf(`
		SELECT DISTINCT virtualtransaction FROM pg_locks
		WHERE locktype = 'relation' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND relation IN (SELECT %d UNION SELECT relid FROM pg_partition_tree(%[1]d))
			AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`, b.oid)
	var waiting map[string]bool
	for delays := backoff.New(time.Millisecond, 200*time.Millisecond); ; {
		rows, err := conn.queryRows(ctx, query)
		if err != nil {
			return err
		}
		now := map[string]bool{}
		for _, row := range rows {
			if waiting == nil || waiting[row[0].Text] {
				now[row[0].Text] = true
			}
		}
		if waiting = now; len(waiting) == 0 {
			return nil
		}
		if err := backoff.Pause(ctx, delays.Delay()); err != nil {
			return err
		}
	}
}

// readRange reads the next rows in key order.
func (b *Backfill) readRange(ctx context.Context, conn *connection, t *table, c *chunk, low []string) error {
	names, _ := t.keyClauses(0)
	where, args := t.keyRange(presentValues(low), nil)
	rows, err := conn.queryRows(ctx, fmt.Sprintf(`SELECT %s FROM %s%s ORDER BY %s LIMIT %d`, t.columns, t.from, where, names, b.chunkSize), args...)
	if err != nil {
		return err
	}
	if err := b.addRows(conn, t, c, rows); err != nil {
		return err
	}
	c.isLast = len(rows) < b.chunkSize
	if len(rows) > 0 { // even if that row is left out
		high, ok := (&keyReader{columns: b.columns}).readKey(c.relation, rows[len(rows)-1], nil)
		if !ok {
			return errNoKey
		}
		c.lastKey = high
	}
	return nil
}

// rereadRows reads rows by their keys.
func (b *Backfill) rereadRows(ctx context.Context, conn *connection, t *table, c *chunk) error {
	keys := make([][]string, 0, len(c.reread))
	for _, key := range c.reread {
		keys = append(keys, key)
	}
	const most = 500 // because a statement has at most 65535 parameters
	for some := range slices.Chunk(keys, most) {
		names, _ := t.keyClauses(0)
		var list, args []string
		for _, key := range some {
			_, parameters := t.keyClauses(len(args))
			list = append(list, "("+parameters+")")
			args = append(args, key...)
		}
		where := "(" + names + ") IN (" + strings.Join(list, ", ") + ")"
		if t.filter != "" {
			where += " AND (" + t.filter + ")"
		}
		rows, err := conn.queryRows(ctx, `SELECT `+t.columns+` FROM `+t.from+` WHERE `+where, args...)
		if err != nil {
			return err
		}
		if err := b.addRows(conn, t, c, rows); err != nil {
			return err
		}
	}
	return nil
}

// errNoKey cannot happen, because key columns are not null.
var errNoKey = errors.New("cdc: a row has no key")

func (b *Backfill) addRows(conn *connection, t *table, c *chunk, rows [][]Value) error {
	reader := keyReader{columns: b.columns}
	for _, row := range rows {
		key, ok := reader.readKey(c.relation, row, nil)
		if !ok {
			return errNoKey
		}
		keep, err := (undecodableFilter{skip: b.stream.skipUndecodable}).keepRow(conn, t, row)
		if err != nil {
			return err
		}
		if !keep {
			continue
		}
		if text := joinKey(key); !c.has[text] {
			c.has[text] = true
			c.rows, c.keys = append(c.rows, row), append(c.keys, key)
		}
	}
	return nil
}

func presentValues(texts []string) (row []Value) {
	for _, text := range texts {
		row = append(row, Value{State: ValuePresent, Text: text})
	}
	return row
}
