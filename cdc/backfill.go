package cdc

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// BackfillConfig configures [Stream.Backfill].
type BackfillConfig struct {
	// Schema of the table. Default: public.
	Schema string
	// Table is the name of the table. It must be in one of the stream's publications, and have a primary key or a
	// replica identity with an index.
	Table string
	// Token continues an unfinished backfill of the same table: a value of [Backfill.Token]. Default: begin with the
	// first row.
	Token string
	// ChunkSize is the number of rows in a chunk. One chunk is in memory. Default: 5000; at most 100,000.
	ChunkSize int
	// Interval is a pause after each chunk, to spare the server. Default: none.
	Interval time.Duration
	// ChunkTimeout bounds the transaction of a chunk once it has locked the table, because ALTER TABLE and TRUNCATE
	// wait for it. Postgres ends a longer transaction even if this process is suspended. That chunk and the following
	// ones are then read with half as many rows. If one row takes longer, the backfill ends with an [*InvalidError].
	// Default: 1 minute.
	ChunkTimeout time.Duration
	// Conn connects to the primary, for a stream that reads from a standby. Default: the stream's Conn.
	Conn *pgx.ConnConfig

	consumer string // of a [Fanout], which alone gets the rows; empty for all
}

// Backfill reads a table beside the stream, in the order of its key and chunk by chunk, while the table is being
// written to. [Stream.Next] returns the rows in separate transactions with changes of [KindRead]. Each arrives at a
// position where it is true: the row is the result of all transactions before it, and later transactions change it
// further. Rows that change while their chunk is read come from the stream only.
//
// A program that keeps a copy of the table applies changes like this. A KindRead is the whole row, whether the copy has
// the row or not. An update of a row that the copy lacks inserts the row, some values of which may be [ValueUnchanged] until
// the row is read. A delete of a row that the copy lacks does nothing. Then copy and table are equal when Done is
// closed, and from then on. A row can be read more than once.
//
// Its methods may be called by any goroutine.
type Backfill struct {
	stream    *Stream
	config    BackfillConfig
	id        string
	from      string   // the table, as in a FROM clause
	oid       uint32   // of the table
	columns   []string // of the key
	cancel    context.CancelFunc
	done      chan struct{}
	woken     chan struct{}
	keys      keyReader // used by the goroutine that calls Next
	chunkSize int       // rows; used by the goroutine that reads

	mu        sync.Mutex
	err       error
	ended     bool
	paused    bool
	progress  progress
	chunk     *chunk     // read, and not delivered yet
	window    *window    // since the low watermark
	closed    uint64     // the last chunk with a passed high watermark
	tableLock *TableLock // held by the chunk that is being read
}

// Backfill starts to read a table beside the stream. It needs no right but to read the table, because it writes its
// watermarks into the log with pg_logical_emit_message. It uses one more connection.
//
// A chunk is read after the transactions that are writing to the table at that moment have ended. A transaction that
// stays open delays the backfill, but not the stream.
//
// To continue after a restart, store [Backfill.Token] together with the results of the changes, and pass it to the next
// Stream of the slot before the first Next. Until the backfill is done, every Stream of the slot must be given the
// token.
//
// It fails with an [*InvalidError], a [*RowSecurityError], [ErrClosed], an error of the server, or the context's error.
// The context bounds only the start.
func (s *Stream) Backfill(ctx context.Context, config BackfillConfig) (*Backfill, error) {
	setDefault(&config.Schema, "public")
	setDefault(&config.ChunkSize, 5000)
	setDefault(&config.ChunkTimeout, time.Minute)
	if config.Conn == nil {
		config.Conn = s.config.Conn
	}
	config.Conn = config.Conn.Copy()
	if err := config.validate(); err != nil {
		return nil, err
	}
	b := &Backfill{
		stream: s, config: config, chunkSize: config.ChunkSize, id: rand.Text(), done: make(chan struct{}), woken: make(chan struct{}, 1),
		progress: progress{Reread: map[string][]string{}},
	}
	if config.Token != "" {
		if s.backfills.begun.Load() {
			return nil, newInvalidError(FieldToken, config.Token, "it must be given before the first call of Next")
		}
		if err := b.progress.parse(config.Token, config.Schema, config.Table); err != nil {
			return nil, err
		}
	}
	connecting, stop := context.WithTimeout(ctx, s.config.Timeout)
	defer stop()
	conn, err := s.connectWriter(connecting, config.Conn)
	if err != nil {
		return nil, err
	}
	if err := b.checkTable(connecting, conn); err != nil {
		conn.close()
		return nil, err
	}
	running, cancel := context.WithCancel(s.alive)
	b.cancel = cancel
	b.keys.columns = b.columns
	if b.progress.Done {
		b.finish(nil)
		conn.close()
		return b, nil
	}
	if err := s.backfills.add(b, func() { s.goroutines.Go(func() { b.run(running, conn) }) }); err != nil {
		cancel()
		conn.close()
		return nil, err
	}
	return b, nil
}

func (c *BackfillConfig) validate() error {
	for _, name := range []string{c.Schema, c.Table} {
		if err := validateName(FieldTable, name); err != nil {
			return err
		}
	}
	switch {
	case c.ChunkSize < 1 || c.ChunkSize > 100_000:
		return newInvalidError(FieldChunkSize, c.ChunkSize, "1 to 100000 rows")
	case c.ChunkTimeout < time.Millisecond:
		return newInvalidError(FieldChunkTimeout, c.ChunkTimeout, "at least 1 millisecond")
	case c.Interval < 0:
		return newInvalidError(FieldInterval, c.Interval, "not negative")
	}
	return nil
}

// checkTable checks, before anything is read, that the table can be backfilled.
func (b *Backfill) checkTable(ctx context.Context, conn *connection) error {
	recovery, err := conn.queryValue(ctx, `SELECT pg_is_in_recovery()`)
	if err != nil {
		return err
	}
	if recovery == "t" {
		return newInvalidError(FieldConn, b.config.Conn.Host, "a primary, because a backfill writes watermarks; this server is a standby")
	}
	t, err := lookupTable(ctx, conn, b.config.Schema, b.config.Table, b.stream.config.Publications)
	if err != nil {
		return err
	}
	if b.columns, err = t.useReplicaIdentity(); err != nil {
		return err
	}
	b.from, b.oid = t.from, t.relation.OID
	if b.progress.Columns != nil && !slices.Equal(b.progress.Columns, b.columns) {
		return newInvalidError(FieldToken, b.config.Token, "a token of a table with the same key")
	}
	b.progress.Schema, b.progress.Table, b.progress.Columns = b.config.Schema, b.config.Table, b.columns
	_, err = conn.queryRows(ctx, `SELECT `+t.columns+` FROM `+t.from+` LIMIT 0`)
	return err
}

// Token is where to continue if the process ends after the transaction that Next returned last: read its changes, then
// store the token together with their results. It changes with each chunk, and rarely in between. It is text of a few
// hundred bytes, or more if many rows with large values have changed their keys.
func (b *Backfill) Token() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.progress.String()
}

// Done is closed when Next has returned the last rows, or the backfill has failed or was stopped; see Err.
func (b *Backfill) Done() <-chan struct{} { return b.done }

// Err is nil while the backfill runs and after it has read all rows. It is [ErrClosed] after Stop or Stream.Close, and
// otherwise the error that ended the backfill. The stream continues in all cases but Close.
func (b *Backfill) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Pause stops reading further chunks until Resume. The current chunk is still delivered.
func (b *Backfill) Pause() { b.setPaused(true) }

// Resume ends a pause.
func (b *Backfill) Resume() { b.setPaused(false) }

func (b *Backfill) setPaused(paused bool) {
	b.mu.Lock()
	b.paused = paused
	b.mu.Unlock()
	b.wakeReader()
}

// Stop ends the backfill. None of its rows are delivered afterwards. Another Stream can continue from its last token.
func (b *Backfill) Stop() { b.finish(ErrClosed) }

// finish ends the backfill, once.
func (b *Backfill) finish(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finishLocked(err)
}

func (b *Backfill) finishLocked(err error) {
	if b.ended {
		return
	}
	b.ended, b.err, b.chunk, b.window = true, err, nil, nil
	b.stream.backfills.remove(b)
	b.cancel()
	close(b.done)
}

// wakeReader makes the reading goroutine check its condition again.
func (b *Backfill) wakeReader() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}
