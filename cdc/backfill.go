package cdc

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// BackfillConfig is what [Stream.Backfill] needs.
type BackfillConfig struct {
	// Schema of the table. Default: public.
	Schema string
	// Table is the name of the table. It must be in one of the stream's publications, and have a primary key, or the index
	// that is its replica identity.
	Table string
	// Token goes on with a backfill that was not finished, of the same table: what [Backfill.Token] gave. Default: from the
	// beginning.
	Token string
	// ChunkSize is how many rows are read at a time. One chunk is in memory. Default: 5000; at most 100,000.
	ChunkSize int
	// Interval is a pause after each chunk, for the sake of the server. Default: none.
	Interval time.Duration
	// ChunkTimeout is how long the transaction of a chunk may last once it has locked the table, against ALTER TABLE and TRUNCATE. Postgres ends one that lasts
	// longer, also if this process stands still. Then the chunk is read again with half as many rows, and the next ones too; one row that takes longer ends
	// the backfill with an [*InvalidError]. Default: 1 minute.
	ChunkTimeout time.Duration
	// Conn connects to the server that is written to, for a stream that comes from a standby. Default: the stream's.
	Conn *pgx.ConnConfig

	consumer string // of a [Fanout], that it is for; empty for all
}

// Backfill reads a table beside the stream, in the order of its key, chunk by chunk, while others write into it. The rows come
// out of [Stream.Next] as transactions of their own with changes of [KindRead], each in the place where it is true: the row is
// then what all transactions before have made of it, and those after change it further. Rows that change while their
// chunk is read come from the stream alone.
//
// Whoever keeps a copy of the table takes a KindRead as the whole row, whether it was there or not; an update of a row that is
// not there as the row, some values of which may be [Unchanged] until the row is read; and a delete of a row that is
// not there as nothing. Then copy and table are equal when Done is closed, and from then on. A row can be read more than once.
//
// Its methods can be called by any goroutine.
type Backfill struct {
	stream    *Stream
	config    BackfillConfig
	id        string
	from      string   // what is locked
	oid       uint32   // of the table
	columns   []string // that make the key
	cancel    context.CancelFunc
	done      chan struct{}
	woken     chan struct{}
	keys      keyReader // for the goroutine that calls Next
	chunkSize int       // rows of a chunk; of the goroutine that reads

	mu        sync.Mutex
	err       error
	ended     bool
	paused    bool
	progress  progress
	chunk     *chunk  // what was read and is not delivered
	window    *window // since the low mark
	closed    uint64  // the last chunk whose high mark was passed
	tableLock *Hold   // of the chunk that is being read
}

// Backfill begins to read a table beside the stream. It needs nothing but the right to read the table: it marks its places in
// the log with pg_logical_emit_message. It takes one connection more.
//
// The rows of a chunk are read when the transactions that are writing into the table at that moment have ended: one that stays
// open holds up the backfill, though not the stream.
//
// To go on after a restart, keep [Backfill.Token] together with what you make of the changes, and give it to the next Stream
// of the slot before the first Next. As long as the backfill is not done, every Stream of the slot must be given it.
//
// It fails with an [*InvalidError], a [*RowSecurityError], [ErrClosed], an error of the server, or the context's, which bounds the beginning only.
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
			return nil, newInvalidError(FieldToken, config.Token, "it must be given before the first transaction is taken from the stream")
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

// checkTable checks what can be checked before anything is read.
func (b *Backfill) checkTable(ctx context.Context, conn *connection) error {
	recovery, err := conn.queryValue(ctx, `SELECT pg_is_in_recovery()`)
	if err != nil {
		return err
	}
	if recovery == "t" {
		return newInvalidError(FieldConn, b.config.Conn.Host, "a server that is written to, for a backfill; this one is a standby")
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
		return newInvalidError(FieldToken, b.config.Token, "one of a table with the key that this one has")
	}
	b.progress.Schema, b.progress.Table, b.progress.Columns = b.config.Schema, b.config.Table, b.columns
	_, err = conn.queryRows(ctx, `SELECT `+t.columns+` FROM `+t.from+` LIMIT 0`)
	return err
}

// Token is where to go on if the process ends after the transaction that Next returned last: keep it together with what was
// made of that transaction, after its changes were read. It changes with each chunk, and seldom between them. It is text
// of no more than some hundred bytes, unless many rows with large values have changed their keys.
func (b *Backfill) Token() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.progress.String()
}

// Done is closed when Next has returned the last rows, or the backfill has failed or was stopped: Err tells which.
func (b *Backfill) Done() <-chan struct{} { return b.done }

// Err is nil while it goes on and when all was read, [ErrClosed] after Stop or Close of the stream, or what it has failed
// with. The stream goes on anyway.
func (b *Backfill) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Pause has no further chunk read until Resume. One that is being read still comes.
func (b *Backfill) Pause() { b.setPaused(true) }

// Resume ends a pause.
func (b *Backfill) Resume() { b.setPaused(false) }

func (b *Backfill) setPaused(paused bool) {
	b.mu.Lock()
	b.paused = paused
	b.mu.Unlock()
	b.wakeReader()
}

// Stop ends it, wherever it is. Its rows do not come any more. Another Stream can go on with the token of before.
func (b *Backfill) Stop() { b.finish(ErrClosed) }

// finish ends it once.
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

// wakeReader makes the reading goroutine look again.
func (b *Backfill) wakeReader() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}
