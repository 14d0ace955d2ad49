package cdc

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config is what [Open] needs.
type Config struct {
	// Conn connects to the database, as a role that may replicate. It is copied.
	Conn *pgx.ConnConfig
	// BeforeConnect is given a copy of the configuration before each connection is made, also those of backfills and heartbeats, and may
	// change it: a password that expires, such as a token of a cloud database. It can be called by several goroutines at once. An error
	// of it is one of connecting, which a stream tries again. Default: Conn is used as it is.
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// Slot is the name of a slot that exists: [CreateSlot] and [CreateSnapshot] make them. With Temporary, there must be none.
	Slot string
	// Temporary has the slot made by the connection that streams, from now on; the server drops it when that ends. So it
	// leaves nothing behind, and a lost connection ends the stream with [ErrResyncNeeded].
	Temporary bool
	// Publications name what is streamed. At least one.
	Publications []string
	// Start is the end of the last transaction that was processed, for those that keep it themselves, together with what
	// they make of the changes. Where the slot was moved beyond it, that is [ErrResyncNeeded]: see OnlyAcknowledged.
	// Default: where the slot is.
	Start LSN
	// OnlyAcknowledged has the slot follow acknowledgements alone. Where there are no changes to acknowledge, [Stream.Next]
	// returns a transaction without any each StatusInterval, if the server has written something else. Set it if you
	// give Start: the slot is never ahead of what you have kept then. Default: where nothing waits for an acknowledgement, the
	// slot follows the server.
	OnlyAcknowledged bool
	// SchemaChanges has [Transaction.Changes] give a change of [KindSchema] before the first change of a table whose columns, replica
	// identity or name are others than at its change before, or which is another table under the same name. Postgres describes a table
	// only when that is changed again: of one that nobody writes to, and of one that was dropped, nothing comes. Default: false.
	SchemaChanges bool
	// SkipUndecodable decides whether a row that cannot be decoded is left out, for good. It is asked each time that the row is met, by the goroutine
	// that calls Next or by the stream's own, and can be asked by several at once. What is left out is logged at level warn, with its table, position and reason, and counted in
	// [Stats]. Decide by what the error says, such as its LSN: a row that is left out is missing in what is made of the changes.
	// Default: none is, and the stream ends with an [*UndecodableError].
	SkipUndecodable func(*UndecodableError) bool
	// Protocol is the version of pgoutput's: 1, or 2, with which the server sends large transactions before they commit,
	// and need not keep them itself. Default: 2.
	Protocol int
	// MemoryLimit bounds what is kept of transactions in memory, in bytes: half of it for those that are not complete and
	// half for those that wait for [Stream.Next]. One message of the server comes on top,
	// twice: as it comes and as it is handed on. Default: 64 MiB; at least 64 KiB.
	MemoryLimit int64
	// SpillLimit bounds the temporary files of transactions that are larger, in bytes; beyond it the stream ends with a
	// [*TooLargeError]. Negative: there are no files, and such a transaction is refused. Default: 16 GiB.
	SpillLimit int64
	// SpillFolder is where those files are. Default: [os.TempDir].
	SpillFolder string
	// StatusInterval is how often the server is told of the position while there is nothing new to tell. Default: 10 seconds;
	// it must be less than the server's wal_sender_timeout, which is 60 seconds unless it was changed.
	StatusInterval time.Duration
	// Heartbeat is how often a small message is written into the log, by a connection of its own, so that there is something in
	// the slot's stream to confirm, and the lag to be known by, where nothing else happens. Other readers of the database see
	// it as a logical message with the prefix delta_heartbeat; [Stream.Next] does not return it. Most streams do not
	// need it: keepalives tell of WAL that is not for them. Not for a server that is a standby. Default: 0, none; at
	// least 100 milliseconds.
	Heartbeat time.Duration
	// Timeout is how long a server may be silent, though asked, before the connection is taken to be lost. It bounds the
	// connecting too. Default: three times StatusInterval.
	Timeout time.Duration
	// ShortestRetry and LongestRetry bound the delay between attempts to connect again, which doubles.
	// Defaults: 100 milliseconds, 10 seconds.
	ShortestRetry, LongestRetry time.Duration
	// Logger is told of lost and new connections. It is never told of data. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults is a copy in which all that was zero has its default.
func (c Config) WithDefaults() Config {
	setDefault(&c.Protocol, 2)
	setDefault(&c.MemoryLimit, 64<<20)
	setDefault(&c.SpillLimit, 16<<30)
	setDefault(&c.StatusInterval, 10*time.Second)
	setDefault(&c.Timeout, 3*c.StatusInterval)
	setDefault(&c.ShortestRetry, 100*time.Millisecond)
	setDefault(&c.LongestRetry, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	if c.Conn == nil {
		return newInvalidError(FieldConn, "nil", "needed")
	}
	if err := validateSlotName(c.Slot); err != nil {
		return err
	}
	if len(c.Publications) == 0 {
		return newInvalidError(FieldPublications, c.Publications, "at least one is needed")
	}
	for _, p := range c.Publications {
		if err := validateName(FieldPublications, p); err != nil {
			return err
		}
	}
	switch {
	case c.Temporary && c.Start != 0:
		return newInvalidError(FieldStart, c.Start, "none with Temporary")
	case c.Protocol < 1 || c.Protocol > 2:
		return newInvalidError(FieldProtocol, c.Protocol, "1 or 2")
	case c.MemoryLimit < 64<<10:
		return newInvalidError(FieldMemoryLimit, c.MemoryLimit, "at least 65536 bytes")
	case c.StatusInterval < 10*time.Millisecond:
		return newInvalidError(FieldStatusInterval, c.StatusInterval, "at least 10 milliseconds")
	case c.Timeout <= c.StatusInterval:
		return newInvalidError(FieldTimeout, c.Timeout, "more than StatusInterval")
	case c.Heartbeat != 0 && c.Heartbeat < 100*time.Millisecond:
		return newInvalidError(FieldHeartbeat, c.Heartbeat, "0, or at least 100 milliseconds")
	case c.ShortestRetry < 0 || c.LongestRetry < c.ShortestRetry:
		return newInvalidError(FieldRetry, c.LongestRetry, "ShortestRetry must be positive and no more than LongestRetry")
	}
	return nil
}

var slotNamePattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

func validateSlotName(name string) error {
	if !slotNamePattern.MatchString(name) {
		return newInvalidError(FieldSlot, name, "1 to 63 of the characters a-z, 0-9 and _")
	}
	return nil
}

// validateName checks the name of something in the database.
func validateName(field Field, name string) error {
	if name == "" || len(name) > 63 || strings.ContainsRune(name, 0) {
		return newInvalidError(field, name, "1 to 63 bytes, none of them zero")
	}
	return nil
}

// quoteIdentifier makes an identifier of a name.
func quoteIdentifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteLiteral makes a string constant, whatever standard_conforming_strings is.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}
