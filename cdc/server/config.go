package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// shortestToken is the minimum length of a token, in characters. A short one could be guessed, and nothing else keeps strangers out.
const shortestToken = 16

// Config configures [New]. Only Conn is required.
type Config struct {
	// Conn connects to the database, as a role that may replicate and read the tables. To create publications, it needs CREATE on the
	// database and must own the tables. New copies it.
	Conn *pgx.ConnConfig
	// BeforeConnect gets a copy of the configuration before each connection is made, and may change it, as in [cdc.Config].
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// Tokens are the secrets of callers, at least 16 characters each. Default: none, and no token is required.
	Tokens []string
	// Insecure lets [Server.Serve] listen on an address that other machines can reach although there are no tokens.
	Insecure bool
	// Tables are patterns of schema.table that may be read and streamed, as in [cdc.FindTables]. Default: all tables except the server's
	// own.
	Tables []string
	// Origins are patterns of origins, such as https://*.example.com: pages of matching origins may call. Default: the server's own origin only.
	Origins []string
	// Hosts are patterns of host names under which the server may be called without tokens, besides localhost and IP addresses. Otherwise a
	// page could resolve its own name to the server's address and read the answers (DNS rebinding).
	Hosts []string
	// Publication is the publication that tails read. One that was created outside of this server is used unchanged. Otherwise the server
	// creates it with all Tables that have a key, and keeps it up to date. Servers with other Tables need another publication: one that
	// such a server maintains is refused. Default: delta_stream_tail, followed by a hash of Tables if Tables is set.
	Publication string
	// Installation tells the session of /v1 from those of other servers of the same database. Default: "default".
	Installation string
	// TLS encrypts connections. Default: connections are not encrypted.
	TLS *tls.Config

	// MaxClients limits how many clients stream at once, and MaxTails how many of them are tails, each of which has a temporary slot.
	// Defaults: 64, 4.
	MaxClients, MaxTails int
	// ClientMemory limits what is buffered for one client, in bytes: beyond it, the server stops reading from Postgres. Default: 16 MiB.
	ClientMemory int64
	// MaxUnacknowledged is how many transactions a client may leave unacknowledged before the server stops sending. Default: 100,000.
	MaxUnacknowledged int
	// MaxBody limits the body of a request, in bytes. Default: 64 KiB.
	MaxBody int64
	// MaxRows limits a page of a snapshot in rows, and MaxPage in bytes; a page may exceed MaxPage by one row. Defaults: 10,000, 8 MiB.
	MaxRows int
	MaxPage int64
	// MaxSnapshots limits how many snapshots are open at once, and SnapshotIdle how long one stays open without being read. Each holds back
	// vacuum, and locks the table being read against ALTER TABLE; other statements on the table then queue behind that ALTER TABLE.
	// Defaults: 8, 10 minutes.
	MaxSnapshots int
	SnapshotIdle time.Duration
	// SnapshotGrace is how long a snapshot stays open after all of its tables were read. It locks no table then, and only holds back
	// vacuum. A client that lost the connection before its last page can ask for the page again, and need not start over with a new slot.
	// Default: 1 minute.
	SnapshotGrace time.Duration
	// SnapshotMax is how long a snapshot stays open at most, even while it is read. Then it ends, and its slot must be created again.
	// Otherwise a slow client could hold back vacuum, and DDL of the table, for ever. Default: 24 hours, in which a terabyte is read at 12
	// MB/s. A shorter time would end clients shortly before the end of a large table, and they would lose all of their work.
	SnapshotMax time.Duration
	// ConsumerBuffer limits the memory for the consumers of one slot that lag behind, in bytes, besides ClientMemory. ConsumerPatience is
	// how long a full buffer may stop the other consumers, before the slowest one is cut and must resync; negative: not at all. Defaults:
	// 64 MiB, 10 seconds.
	ConsumerBuffer   int64
	ConsumerPatience time.Duration
	// CreateTimeout limits how long the creation of a slot waits for running transactions. Default: 30 seconds.
	CreateTimeout time.Duration
	// HeartbeatInterval is how often an idle client gets the position and a ping. Default: 15 seconds.
	HeartbeatInterval time.Duration
	// WriteTimeout is how long a client may take to read a message before it is disconnected. Default: 30 seconds.
	WriteTimeout time.Duration
	// SkipUndecodable lists rows that cannot be decoded and are to be left out of streams and snapshots, for all clients and for good: each
	// entry is a position in the log, as the error names it, or a pattern of tables. If Postgres itself cannot decode a row, the whole
	// transaction is left out and the table is unknown, so only a position or * matches. Each such row is logged and counted. Default:
	// none, so a client that reaches such a row is ended with the code undecodable.
	SkipUndecodable []string
	// Stream has further settings of the streams, such as SpillLimit, or Heartbeat, from which /metrics computes the time from commit to
	// delivery. Its fields Conn, BeforeConnect, Slot, Temporary, Publications, Start, MemoryLimit and Logger are ignored.
	Stream cdc.Config
	// Logger gets errors and the starts and ends of clients, and never data. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns a copy in which every zero field has its default.
func (c Config) WithDefaults() Config {
	if len(c.Tables) == 0 {
		c.Tables = []string{"*"}
	}
	setDefault(&c.Publication, tailPublication(c.Tables))
	setDefault(&c.Installation, "default")
	setDefault(&c.MaxClients, 64)
	setDefault(&c.MaxTails, 4)
	setDefault(&c.ClientMemory, 16<<20)
	setDefault(&c.MaxUnacknowledged, 100_000)
	setDefault(&c.MaxBody, 64<<10)
	setDefault(&c.MaxRows, 10_000)
	setDefault(&c.MaxPage, 8<<20)
	setDefault(&c.MaxSnapshots, 8)
	setDefault(&c.SnapshotIdle, 10*time.Minute)
	setDefault(&c.SnapshotGrace, time.Minute)
	setDefault(&c.SnapshotMax, 24*time.Hour)
	setDefault(&c.ConsumerBuffer, 64<<20)
	setDefault(&c.ConsumerPatience, 10*time.Second)
	setDefault(&c.CreateTimeout, 30*time.Second)
	setDefault(&c.HeartbeatInterval, 15*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// tailPublication returns a name that servers with other tables do not use.
func tailPublication(patterns []string) string {
	const name = "delta_stream_tail"
	if len(patterns) == 1 && patterns[0] == "*" {
		return name
	}
	sum := sha256.Sum256([]byte(strings.Join(sortPatterns(patterns), "\n")))
	return name + "_" + hex.EncodeToString(sum[:4])
}

// sortPatterns returns the patterns sorted and without duplicates, so that two servers can compare theirs.
func sortPatterns(patterns []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(patterns)))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	if c.Conn == nil {
		return invalidField("Conn", "nil", "needed")
	}
	for _, token := range c.Tokens {
		if len(token) < shortestToken || strings.ContainsAny(token, " \t\r\n") {
			return invalidField("Tokens", fmt.Sprintf("of %d characters", len(token)), fmt.Sprintf("%d characters or more, none of them white space", shortestToken))
		}
	}
	for _, list := range []struct {
		field    cdc.Field
		patterns []string
	}{{cdc.FieldTables, c.Tables}, {"Origins", c.Origins}, {"Hosts", c.Hosts}} {
		for _, p := range list.patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				return invalidField(list.field, p, "a pattern of *, ?, [a-z] and other characters")
			}
		}
	}
	for _, o := range c.Origins {
		if u, err := url.Parse(strings.NewReplacer("*", "x", "?", "x", "[", "x", "]", "x").Replace(o)); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			return invalidField("Origins", o, "a scheme and a host, such as https://app.example.com")
		}
	}
	for _, limit := range []struct {
		field cdc.Field
		value any
		holds bool
	}{
		{"MaxClients", c.MaxClients, c.MaxClients > 0},
		{"MaxTails", c.MaxTails, c.MaxTails > 0},
		{"MaxUnacknowledged", c.MaxUnacknowledged, c.MaxUnacknowledged > 0},
		{"MaxBody", c.MaxBody, c.MaxBody > 0},
		{"MaxRows", c.MaxRows, c.MaxRows > 0},
		{"MaxPage", c.MaxPage, c.MaxPage > 0},
		{"MaxSnapshots", c.MaxSnapshots, c.MaxSnapshots > 0},
		{"SnapshotIdle", c.SnapshotIdle, c.SnapshotIdle > 0},
		{"SnapshotGrace", c.SnapshotGrace, c.SnapshotGrace > 0},
		{"SnapshotMax", c.SnapshotMax, c.SnapshotMax > 0},
		{"CreateTimeout", c.CreateTimeout, c.CreateTimeout > 0},
		{"HeartbeatInterval", c.HeartbeatInterval, c.HeartbeatInterval > 0},
		{"WriteTimeout", c.WriteTimeout, c.WriteTimeout > 0},
	} {
		if !limit.holds {
			return invalidField(limit.field, limit.value, "more than zero")
		}
	}
	if err := checkSkips(c.SkipUndecodable); err != nil {
		return err
	}
	if len(c.Publication) > 63 || strings.ContainsRune(c.Publication, 0) {
		return invalidField("Publication", c.Publication, "1 to 63 bytes, none of them zero")
	}
	if every := c.Stream.Heartbeat; every != 0 && every < 100*time.Millisecond {
		return invalidField("Stream.Heartbeat", every, "0, for none, or at least 100 milliseconds")
	}
	if c.ClientMemory < 64<<10 {
		return invalidField("ClientMemory", c.ClientMemory, "at least 65536 bytes")
	}
	if c.ConsumerBuffer < 64<<10 {
		return invalidField("ConsumerBuffer", c.ConsumerBuffer, "at least 65536 bytes")
	}
	if c.MaxRows >= 100_000 {
		return invalidField("MaxRows", c.MaxRows, "less than 100000")
	}
	return nil
}

func invalidField(field cdc.Field, value any, rule string) error {
	return &cdc.InvalidError{Field: field, Value: fmt.Sprint(value), Rule: rule}
}
