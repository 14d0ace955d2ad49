package cdc

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config configures [Open].
type Config struct {
	// Conn connects to the database, as a role that may replicate. It is copied.
	Conn *pgx.ConnConfig
	// BeforeConnect, if set, is called with a copy of Conn before each connection is made, also those of backfills and
	// heartbeats, and may change the copy: for a password that expires, such as a token of a cloud database. Several
	// goroutines may call it at once. If it fails, the attempt to connect fails, and a stream tries again. Default:
	// Conn is used as it is.
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// Slot is the name of an existing slot, made by [CreateSlot] or [CreateSnapshot]. With Temporary, no slot of this
	// name may exist.
	Slot string
	// Temporary makes the streaming connection create the slot, which begins at that moment. The server drops the slot
	// when the connection ends, so nothing is left behind, but a lost connection ends the stream with
	// [ErrResyncNeeded].
	Temporary bool
	// Publications are the names of the publications to stream. At least one.
	Publications []string
	// Start is the end of the last transaction that was processed, for programs that store this position together with
	// the results of the changes. If the slot has moved beyond Start, opening the stream fails with [ErrResyncNeeded]:
	// see OnlyAcknowledged. Default: the slot's own position.
	Start LSN
	// OnlyAcknowledged moves the slot only when a transaction is acknowledged. Set it together with Start, because then
	// the slot is never ahead of the position that you have stored. When there are no changes to acknowledge but the
	// server has written other WAL, [Stream.Next] returns an empty transaction every StatusInterval, so that the slot
	// can still move. Default: while nothing waits for an acknowledgement, the slot follows the server.
	OnlyAcknowledged bool
	// SchemaChanges makes [Transaction.Changes] yield a change of [KindSchema] before the first change under a new
	// definition: other columns, another replica identity or another name, or another table under the same name.
	// Postgres describes a table only when one of its rows changes again, so nothing is reported for a table that is
	// not written to or that was dropped. Default: false.
	SchemaChanges bool
	// SkipUndecodable decides whether to leave out, for good, a row that cannot be decoded. It is called each time the
	// row is met, by the goroutine that calls Next or by one of the stream's, and several may call it at once. A row
	// that is left out is logged at level warn, with its table, position and reason, and counted in [Stats]. Decide by
	// what the error holds, such as its LSN, because the row will be missing downstream. Default: no row is left out,
	// and the stream ends with an [*UndecodableError].
	SkipUndecodable func(*UndecodableError) bool
	// Protocol is the version of the pgoutput protocol. With 2 the server sends large transactions before they commit,
	// and need not store them itself. 1 or 2. Default: 2.
	Protocol int
	// MemoryLimit bounds the memory for transactions, in bytes: half of it for incomplete ones and half for those that
	// wait for [Stream.Next]. The server's current message is not included; it is held twice, as received and as
	// delivered. Default: 64 MiB; at least 64 KiB.
	MemoryLimit int64
	// SpillLimit bounds the temporary files for transactions that do not fit into memory, in bytes. Beyond it the
	// stream ends with a [*TooLargeError]. Negative: no files are used, and such a transaction is refused. Default: 16
	// GiB.
	SpillLimit int64
	// SpillFolder is the folder of those files. Default: [os.TempDir].
	SpillFolder string
	// StatusInterval is how often the server is sent a standby status while the position does not change. It must be
	// less than the server's wal_sender_timeout, which is 60 seconds by default. Default: 10 seconds.
	StatusInterval time.Duration
	// Heartbeat is how often a small message is written into the log, by a separate connection. On a quiet database it
	// gives the slot something to confirm, and the lag something to be measured by. Other readers of the database see
	// it as a logical message with the prefix delta_heartbeat; [Stream.Next] does not return it. Most streams do not
	// need it, because keepalives report WAL that is not for them. It cannot be used on a standby. Default: 0, none; at
	// least 100 milliseconds.
	Heartbeat time.Duration
	// Timeout is how long the server may stay silent after a request for a reply before the connection counts as lost.
	// It also bounds connecting. Default: 30 seconds, or three times StatusInterval if that is longer.
	Timeout time.Duration
	// ShortestRetry and LongestRetry bound the delay before the next attempt to connect. The delay doubles each time.
	// Defaults: 100 milliseconds, 10 seconds.
	ShortestRetry, LongestRetry time.Duration
	// Logger receives lost and new connections, never the data of a row. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns a copy in which each zero field has its default.
func (c Config) WithDefaults() Config {
	setDefault(&c.Protocol, 2)
	setDefault(&c.MemoryLimit, 64<<20)
	setDefault(&c.SpillLimit, 16<<30)
	setDefault(&c.StatusInterval, 10*time.Second)
	setDefault(&c.Timeout, max(30*time.Second, 3*c.StatusInterval))
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

// validateName checks the name of a database object.
func validateName(field Field, name string) error {
	if name == "" || len(name) > 63 || strings.ContainsRune(name, 0) {
		return newInvalidError(field, name, "1 to 63 bytes, none of them zero")
	}
	return nil
}

func quoteIdentifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteLiteral returns a string constant that is valid with either setting of standard_conforming_strings.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}
