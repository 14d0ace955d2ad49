package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/backoff"
)

// tableState is where a table stands. It is written with what has led to it.
type tableState struct {
	// LSN is the end of the last transaction of which all was written; empty for a slot that was made, and not read yet.
	LSN string `json:"lsn,omitempty"`
	// Table is the table's oid, Shape what was read from which of its columns, and Version that of the configuration, when it was last read as a whole.
	Table   uint32 `json:"table,omitempty"`
	Shape   string `json:"shape,omitempty"`
	Version int    `json:"version,omitempty"`
	// Read is true once the table was read as a whole, and all changes since were written.
	Read bool `json:"read,omitempty"`
}

// tableRun is one run of a source that is a table.
type tableRun[T delta.Object] struct {
	config  TableConfig[T]
	feed    *delta.Feed
	log     *slog.Logger
	mapping *mapping[T]
	conn    *pgx.Conn
	state   tableState
	// isOwnPublication reports whether the publication has the name that is made here.
	isOwnPublication bool

	stream *cdc.Stream
	// isReading reports whether a listing runs; backfill delivers its rows. If again is set, the table is read once more after it.
	isReading bool
	backfill  *cdc.Backfill
	again     string
	// unnamed counts listed rows that were refused and cannot be attributed to an object. If there are any, the listing deletes nothing.
	unnamed int
	// query is TableConfig.Query, nil where that is not set. keys are the keys of changed rows for which it was not read yet.
	query *keyedQuery
	keys  changedKeys
	page  page
	// end is that of the last transaction of which all is in the page, or was written; acknowledged what the stream was told.
	end, acknowledged cdc.LSN

	// reason is why the table is read as a whole, lost why another slot had to be made, and behind how much of the log is before the slot; nil where that is not known.
	reason, lost string
	behind       *int64
}

// openRun connects to the table's database.
func (s *tableSource[T]) openRun(ctx context.Context, feed *delta.Feed) (*tableRun[T], error) {
	r := &tableRun[T]{config: s.config, feed: feed, log: feed.Logger()}
	if position := feed.Position(); position != "" {
		if err := json.Unmarshal([]byte(position), &r.state); err != nil {
			return nil, fmt.Errorf("reading the position %q in delta_source: %w", position, err)
		}
	}
	if r.config.Conn == nil {
		r.config.Conn = feed.Pool().Config().ConnConfig
	}
	zero, err := kindOf[T]()
	if err != nil {
		return nil, err
	}
	name := defaultName(zero, feed.Installation(), s.Name())
	if r.config.Slot == "" {
		r.config.Slot = name
	}
	if r.config.Publication == "" {
		r.config.Publication, r.isOwnPublication = name, true
	}
	if r.mapping, err = newMapping[T](r.config.Map); err != nil {
		return nil, err
	}
	if r.config.Query != "" {
		r.mapping.source = "TableConfig.Query over table"
	}
	return r, r.connectDatabase(ctx)
}

// kindOf is the kind of a type of object, which was asked before when it was added.
func kindOf[T delta.Object]() (string, error) {
	_, object := newObject[T]()
	kind := object.Kind()
	if kind == "" {
		return "", errors.New("the kind is empty")
	}
	return kind, nil
}

var notInSlotName = regexp.MustCompile(`[^a-z0-9_]`)

// defaultName names a slot and a publication, for people and without collisions: slots are of the whole server.
func defaultName(kind, installation, source string) string {
	sum := sha256.Sum256([]byte(installation + "\x00" + kind + "\x00" + source))
	plain := notInSlotName.ReplaceAllString(strings.ToLower(kind), "_")
	return "delta_" + plain[:min(len(plain), 40)] + "_" + hex.EncodeToString(sum[:6])
}

// connectTimeout bounds connecting, and each statement but the making of a slot.
const connectTimeout = 10 * time.Second

// connectDatabase makes the connection for all statements besides the stream. It sets the formats of texts that the stream uses.
func (r *tableRun[T]) connectDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config := r.config.Conn.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler that passes replication on may be between
	conn, err := cdc.Connect(ctx, config, r.config.BeforeConnect)
	if err != nil {
		return fmt.Errorf("the database of the table: %w", err)
	}
	r.conn = conn
	return nil
}

func (r *tableRun[T]) close() {
	if r.stream != nil {
		r.stream.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.conn.Close(ctx)
}

// prepareSlot makes the publication if it is missing, and the slot if there is no position yet. why is the reason for reading the table as a whole; empty if that is not needed.
func (r *tableRun[T]) prepareSlot(ctx context.Context) (why string, err error) {
	if err := r.ensurePublication(ctx); err != nil {
		return "", err
	}
	oid, err := r.findTable(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case !r.state.Read:
		why = "it was not read yet, or not to its end"
	case r.state.Table != oid:
		why = "it is another table of the same name"
	case r.state.Version != r.config.Version:
		why = fmt.Sprintf("TableConfig.Version is %d, and was %d", r.config.Version, r.state.Version)
	}
	r.state.Table, r.state.Version = oid, r.config.Version
	if r.state.LSN != "" {
		return why, nil
	}
	if err := r.feed.Write(ctx, delta.FeedPage{Position: r.state.formatText()}); err != nil {
		return "", err
	}
	r.feed.Report(delta.FeedReport{IsReading: true, Reason: "its slot is made, for which Postgres waits until all transactions that write have ended"})
	if _, err := cdc.CreateSlot(ctx, r.conn, r.config.Slot, cdc.SlotOptions{}); err != nil && !errors.Is(err, cdc.ErrExists) {
		return "", err
	}
	return why, nil
}

func (s tableState) formatText() string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // it has nothing that could not be JSON
	}
	return string(text)
}

// ensurePublication makes the publication, or adds the table to the one that was made here.
func (r *tableRun[T]) ensurePublication(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := cdc.CreatePublication(ctx, r.conn, cdc.Publication{
		Name: r.config.Publication, Tables: []cdc.PublishedTable{{Schema: r.config.Schema, Table: r.config.Table}}, ViaRoot: true,
	})
	if err == nil {
		r.state.Read = false // what changed without it cannot be read from the log
		return nil
	}
	if !errors.Is(err, cdc.ErrExists) {
		if there, findErr := r.isPublished(ctx); findErr == nil && there {
			return nil // it is there, though this role may not make it
		}
		return err
	}
	there, err := r.isPublished(ctx)
	if err != nil || there {
		return err
	}
	if !r.isOwnPublication {
		return fmt.Errorf("table %s.%s is not in publication %q: add it with ALTER PUBLICATION … ADD TABLE", r.config.Schema, r.config.Table, r.config.Publication)
	}
	add := "ALTER PUBLICATION " + pgx.Identifier{r.config.Publication}.Sanitize() + " ADD TABLE " + pgx.Identifier{r.config.Schema, r.config.Table}.Sanitize()
	if _, err := r.conn.Exec(ctx, add); err != nil {
		return fmt.Errorf("adding the table to publication %q: %w", r.config.Publication, err)
	}
	r.state.Read = false
	return nil
}

// isPublished reports whether changes of the table are in the publication.
func (r *tableRun[T]) isPublished(ctx context.Context) (is bool, err error) {
	err = r.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3)`,
		r.config.Publication, r.config.Schema, r.config.Table).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("looking at publication %q: %w", r.config.Publication, err)
	}
	return is, nil
}

func (r *tableRun[T]) findTable(ctx context.Context) (oid uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err = r.conn.QueryRow(ctx, `SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
		r.config.Schema, r.config.Table).Scan(&oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("there is no table %s.%s", r.config.Schema, r.config.Table)
	}
	if err != nil {
		return 0, fmt.Errorf("looking for table %s.%s: %w", r.config.Schema, r.config.Table, err)
	}
	return oid, nil
}

// openStream opens the stream. A slot that is read belongs to an earlier run, which may write no more: its client was cut off, and the server has not noticed.
func (r *tableRun[T]) openStream(ctx context.Context) error {
	config := cdc.Config{
		Conn: r.config.Conn, BeforeConnect: r.config.BeforeConnect, Slot: r.config.Slot, Publications: []string{r.config.Publication},
		OnlyAcknowledged: true, SchemaChanges: true, StatusInterval: statusInterval, Timeout: connectTimeout, Logger: r.log,
	}
	if r.state.LSN != "" {
		at, err := cdc.ParseLSN(r.state.LSN)
		if err != nil {
			return err
		}
		config.Start = at
	}
	for try := 1; ; try++ {
		stream, err := cdc.Open(ctx, config)
		switch {
		case err == nil:
			r.stream, r.end, r.acknowledged = stream, config.Start, config.Start
			return nil
		case !errors.Is(err, cdc.ErrSlotBusy) || try == busyTries:
			return err
		}
		ended, err := r.endReader(ctx)
		if err != nil {
			return err
		}
		if ended {
			r.log.Warn("bridge: an earlier run still read the slot, and its connection was terminated", "slot", r.config.Slot)
		}
	}
}

const (
	// statusInterval is how often the position is confirmed where nothing changes.
	statusInterval = 3 * time.Second
	// busyTries is how often a slot is tried that another process of the server reads.
	busyTries = 5
)

// endReader ends what reads the slot.
func (r *tableRun[T]) endReader(ctx context.Context) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err = r.conn.QueryRow(ctx, `SELECT coalesce(bool_or(pg_terminate_backend(active_pid)), false) FROM pg_replication_slots
		WHERE slot_name = $1 AND active_pid IS NOT NULL`, r.config.Slot).Scan(&ended)
	if err != nil {
		return false, fmt.Errorf("ending the process of the server that still reads slot %q: %w", r.config.Slot, err)
	}
	return ended, nil
}

// dropLostSlot drops the slot and resets the state after changes were lost, so that another slot is made and the whole table is read.
func (r *tableRun[T]) dropLostSlot(ctx context.Context, why error) error {
	r.log.Warn("bridge: changes of the table were lost, so all of it is read again; resources whose rows are gone are deleted then",
		"table", r.config.Schema+"."+r.config.Table, "error", why)
	if r.stream != nil {
		r.stream.Close()
		r.stream = nil
	}
	r.abandonReading(ctx, why)
	r.lost = "changes were lost: " + why.Error()
	r.end, r.acknowledged, r.behind = 0, 0, nil
	r.state = tableState{}
	if err := r.feed.Write(ctx, delta.FeedPage{Position: r.state.formatText()}); err != nil {
		return err
	}
	if _, err := r.endReader(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := cdc.DropSlot(ctx, r.conn, r.config.Slot)
		switch {
		case err == nil, errors.Is(err, cdc.ErrNotFound):
			return nil
		case !errors.Is(err, cdc.ErrSlotBusy) || try == busyTries:
			return fmt.Errorf("dropping slot %q, which has lost changes: %w", r.config.Slot, err)
		}
		if err := backoff.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}
