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

// shortestToken is what a token must have at least, in characters: it is all that keeps strangers out.
const shortestToken = 16

// Config is what [New] needs.
type Config struct {
	// Conn connects to the database, as a role that may replicate and read the tables. To make publications it needs CREATE on
	// the database and must own the tables. It is copied.
	Conn *pgx.ConnConfig
	// BeforeConnect is given a copy of the configuration before each connection is made, and may change it, as in [cdc.Config].
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// Tokens are the secrets of those who may call, 16 characters or more each. Default: none, and nobody is asked.
	Tokens []string
	// Insecure lets [Server.Serve] listen on addresses that other machines reach although there are no tokens.
	Insecure bool
	// Tables are patterns of the schema.table that may be read and streamed, as in [cdc.FindTables]. Default: all tables but
	// the server's own.
	Tables []string
	// Origins are patterns of origins, such as https://*.example.com, whose pages may call. Default: the server's own only.
	Origins []string
	// Hosts are patterns of host names under which the server may be called while there are no tokens, besides localhost and
	// addresses: a page of another name cannot reach it by giving that name the server's address.
	Hosts []string
	// Publication is the one that live tails read. One that somebody has made is used as it is; or else it is made, of all
	// Tables that have a key, and kept so. Servers with other Tables need another; one that theirs keep is refused. Default:
	// delta_stream_tail, with a hash of Tables behind it where those are given.
	Publication string
	// Installation names the session of /v1 among those of other servers of the same database. Default: "default".
	Installation string
	// TLS has connections encrypted. Default: they are not.
	TLS *tls.Config

	// MaxClients is how many may stream at the same time, and MaxTails how many of them from slots of their own that end with
	// them. Defaults: 64, 4.
	MaxClients, MaxTails int
	// ClientMemory bounds what waits for one client, in bytes: beyond it, Postgres is not read on. Default: 16 MiB.
	ClientMemory int64
	// MaxUnacknowledged is how many transactions a client may leave unacknowledged before it gets no more. Default: 100,000.
	MaxUnacknowledged int
	// MaxBody bounds the body of a request, in bytes. Default: 64 KiB.
	MaxBody int64
	// MaxRows bounds a page of a snapshot in rows, MaxPage in bytes; one row may come on top. Defaults: 10,000, 8 MiB.
	MaxRows int
	MaxPage int64
	// MaxSnapshots is how many are held at the same time, SnapshotIdle how long one is held that nobody reads. Each holds back
	// the vacuum of Postgres, and locks the table that is being read against ALTER TABLE, behind which everybody else waits then. Defaults:
	// 8, 10 minutes.
	MaxSnapshots int
	SnapshotIdle time.Duration
	// SnapshotGrace is how long a snapshot is kept of which all tables were read to their ends. It locks nothing any more, and only holds back
	// vacuum: a client that did not get its last page, such as by a lost connection, can ask for it again, and need not begin with a
	// new slot. Default: 1 minute.
	SnapshotGrace time.Duration
	// SnapshotMax is how long a snapshot is held at most, even while it is read: then it ends, and its slot has to be made anew. A client
	// that reads on slowly must not hold back vacuum, and DDL of the table, for ever. Default: 24 hours, in which a terabyte is read at
	// 12 MB/s; a shorter time would end honest readers of large tables just before their end, which costs them everything.
	SnapshotMax time.Duration
	// ConsumerBuffer bounds what is kept in memory for the consumers of one slot that are behind, in bytes, besides ClientMemory. ConsumerPatience is how
	// long a full buffer keeps one that waits from going on, before the one behind has to begin anew; negative: not at all. Defaults: 64 MiB, 10 seconds.
	ConsumerBuffer   int64
	ConsumerPatience time.Duration
	// CreateTimeout bounds how long a new slot waits for the transactions that are running. Default: 30 seconds.
	CreateTimeout time.Duration
	// HeartbeatInterval is how often a client to which nothing else is sent is told the position, and pinged. Default: 15 seconds.
	HeartbeatInterval time.Duration
	// WriteTimeout is how long a client may take to read what is sent, before it is cut. Default: 30 seconds.
	WriteTimeout time.Duration
	// SkipUndecodable are decisions to leave out rows that cannot be decoded, of streams and snapshots, for all clients and for good: each is a
	// position in the log, as the error names it, or a pattern of tables. Where Postgres itself cannot decode a row, its whole transaction is left out,
	// and no table is known: only the position or * is about it. Each row that is left out is logged and counted. Default: none, and a client that
	// comes to such a row is ended with undecodable.
	SkipUndecodable []string
	// Stream are further settings of the streams, such as SpillLimit, or Heartbeat, by which /metrics has the time from commit to
	// delivery. Conn, BeforeConnect, Slot, Temporary, Publications, Start, MemoryLimit
	// and Logger of it are not used.
	Stream cdc.Config
	// Logger is told of what goes wrong, and never of data. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults is a copy in which all that was zero has its default.
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

// tailPublication is a name that servers with other tables do not have.
func tailPublication(patterns []string) string {
	const name = "delta_stream_tail"
	if len(patterns) == 1 && patterns[0] == "*" {
		return name
	}
	sum := sha256.Sum256([]byte(strings.Join(sortPatterns(patterns), "\n")))
	return name + "_" + hex.EncodeToString(sum[:4])
}

// sortPatterns is the set of patterns, whatever their order and number.
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
	for field, patterns := range map[cdc.Field][]string{cdc.FieldTables: c.Tables, "Origins": c.Origins, "Hosts": c.Hosts} {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				return invalidField(field, p, "a pattern of *, ?, [a-z] and other characters")
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
