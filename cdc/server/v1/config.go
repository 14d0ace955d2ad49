package v1

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/cdc"
)

// Config configures [New]. Only Conn is required.
type Config struct {
	// Conn connects to the database, as a role that may replicate, may read the tables, may create publications, and owns the tables to
	// stream or is a superuser. New copies it.
	Conn *pgx.ConnConfig
	// BeforeConnect gets a copy of the configuration before each connection is made, and may change it, as in [cdc.Config].
	BeforeConnect func(ctx context.Context, config *pgx.ConnConfig) error
	// Installation is the name of this installation among others that serve the same database. It finds the slots and publications that it
	// created under this name, also after a restart, and touches no others. Default: "default". 1 to 30 of a-z, 0-9 and _.
	Installation string
	// Tables are patterns of schema.table that may be read and streamed, as in [cdc.FindTables]. Default: all tables except the server's
	// own.
	Tables []string
	// Origins are patterns of hosts, such as *.example.com, or of origins, such as https://*.example.com: matching pages may send requests.
	// Default: the host of the server only. Clients that are not browsers send no origin, and are not checked.
	Origins []string
	// MaxBody limits the body of a request, in bytes. Default: 64 KiB.
	MaxBody int64
	// MaxRows limits the parameter limit of a request for snapshot data, in rows. Default: 100,000.
	MaxRows int
	// SnapshotIdle is how long a snapshot is kept without being read. Meanwhile it holds back vacuum. Default: 1 hour. Negative: until the
	// next init.
	SnapshotIdle time.Duration
	// SnapshotMax is how long a snapshot is kept at most, even while it is read. Meanwhile it holds back vacuum, and locks the tables that
	// were read against ALTER TABLE and TRUNCATE; other statements on such a table then queue behind these. Default: 24 hours.
	SnapshotMax time.Duration
	// RefreshInterval is how often new and changed tables are looked for while there is a slot. Default: 5 seconds.
	RefreshInterval time.Duration
	// PingInterval is how often a client gets a ping, and PingTimeout how long it may take to answer. The ping arrives behind messages that
	// the client has not read yet. Defaults: 20 seconds, 60 seconds.
	PingInterval, PingTimeout time.Duration
	// Stream has the settings of the streams, such as MemoryLimit, which limits what is buffered for one client. Its fields Conn, Slot,
	// Publications, Start and Logger are ignored.
	Stream cdc.Config
	// StreamOpened is called with each stream that is opened, so that the caller can read its Stats. The returned function is called when
	// the stream has ended. Default: not called.
	StreamOpened func(slot string, stream *cdc.Stream) (ended func())
	// Logger gets errors, and never data. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns a copy in which every zero field has its default.
func (c Config) WithDefaults() Config {
	if c.Installation == "" {
		c.Installation = "default"
	}
	if len(c.Tables) == 0 {
		c.Tables = []string{"*"}
	}
	setDefault(&c.MaxBody, 64<<10)
	setDefault(&c.MaxRows, 100_000)
	setDefault(&c.SnapshotIdle, time.Hour)
	setDefault(&c.SnapshotMax, 24*time.Hour)
	setDefault(&c.RefreshInterval, 5*time.Second)
	setDefault(&c.PingInterval, 20*time.Second)
	setDefault(&c.PingTimeout, 60*time.Second)
	if c.StreamOpened == nil {
		c.StreamOpened = func(string, *cdc.Stream) func() { return func() {} }
	}
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

var installationName = regexp.MustCompile(`^[a-z0-9_]{1,30}$`)

func (c *Config) validate() error {
	if c.Conn == nil {
		return invalidField("Conn", "nil", "needed")
	}
	if !installationName.MatchString(c.Installation) {
		return invalidField("Installation", c.Installation, "1 to 30 of the characters a-z, 0-9 and _")
	}
	for _, list := range []struct {
		field    cdc.Field
		patterns []string
	}{{"Tables", c.Tables}, {"Origins", c.Origins}} {
		for _, p := range list.patterns {
			if _, err := path.Match(p, ""); err != nil {
				return invalidField(list.field, p, "a pattern of *, ?, [a-z] and other characters")
			}
		}
	}
	for _, limit := range []struct {
		field      cdc.Field
		isPositive bool
	}{
		{"MaxBody", c.MaxBody > 0},
		{"MaxRows", c.MaxRows > 0},
		{"SnapshotMax", c.SnapshotMax > 0},
		{"Refresh", c.RefreshInterval > 0},
		{"PingInterval", c.PingInterval > 0},
		{"PingTimeout", c.PingTimeout > 0},
	} {
		if !limit.isPositive {
			return invalidField(limit.field, "negative", "more than zero")
		}
	}
	return nil
}

func invalidField(field cdc.Field, value any, rule string) error {
	return &cdc.InvalidError{Field: field, Value: fmt.Sprint(value), Rule: rule}
}
