package messagedb

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// DefaultSchema is where Message DB's installer puts it.
	DefaultSchema = "message_store"
	// NoStreamVersion is the version of a stream without messages. As an expected version it says: be the first to write.
	NoStreamVersion int64 = -1
	// AnyVersion as an expected version writes whatever the version of the stream is.
	AnyVersion int64 = -2
	// DefaultBatchSize is how many messages one read asks for.
	DefaultBatchSize = 1000
	// Unlimited as a batch size reads all there are.
	Unlimited = -1
)

// Config changes what a client does. Its zero value is useful.
type Config struct {
	// Schema is the schema that Message DB is in. It need not be on the search path. Default: [DefaultSchema].
	Schema string
	// Polling is how subscriptions of this client poll, where they do not say otherwise. Default:
	// ConstantPolling(DefaultPollingInterval).
	Polling PollingStrategy
	// Notify lets writes of this client wake subscriptions that ask for it, with NOTIFY. A commit that notifies takes a lock of
	// the whole database, so leave it off where many transactions a second write. Default: false.
	Notify bool
	// Logger is told of what goes wrong in subscriptions and consumers. Default: [slog.Default].
	Logger *slog.Logger
}

// WithDefaults returns the configuration with its defaults filled in.
func (c Config) WithDefaults() Config {
	if c.Schema == "" {
		c.Schema = DefaultSchema
	}
	if c.Polling == nil {
		c.Polling = ConstantPolling(DefaultPollingInterval)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c Config) validate() error { return validSchema(c.Schema) }

func validSchema(name string) error {
	if len(name) > 63 {
		return newInvalidError(FieldSchema, name, "must not be longer than 63 bytes")
	}
	return validText(FieldSchema, name)
}

// querier runs the calls of a client: a pool or a transaction whose connections are checked.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Client writes and reads messages. It is safe for concurrent use, except one that InTx made.
type Client struct {
	config   Config
	sql      *statements
	txSQL    *statements // what InTx uses
	db       querier
	pool     *pgxpool.Pool
	tx       pgx.Tx // nil unless this client is bound to one
	notifier *notifier

	counters *clientCounters // shared with the clients of InTx

	claimLasts, takesAfter time.Duration // the constant claimLasts, but in tests
}

// NewClient makes a client of the Message DB that a pool connects to. It asks the server nothing; call [Client.Version] to
// see whether Message DB is there. The caller keeps the pool, and closes it after the last use of the client. A nil config is
// the zero one. It returns an [InvalidError] if the pool is nil or the schema cannot be one.
func NewClient(pool *pgxpool.Pool, config *Config) (*Client, error) {
	if pool == nil {
		return nil, newInvalidError(FieldPool, "nil", "must be an open *pgxpool.Pool")
	}
	if config == nil {
		config = &Config{}
	}
	full := config.WithDefaults()
	if err := full.validate(); err != nil {
		return nil, err
	}
	channel := "messagedb_" + strconv.FormatUint(uint64(Hash64(full.Schema)), 36) //nolint:gosec // any number will do
	alone, inTx := newStatements(full.Schema, channel, false), newStatements(full.Schema, channel, true)
	return &Client{
		config:   full,
		sql:      &alone,
		txSQL:    &inTx,
		db:       utf8Pool{pool},
		pool:     pool,
		notifier: newNotifier(pool, channel, full.Logger),

		counters: &clientCounters{},

		claimLasts: claimLasts, takesAfter: claimLasts,
	}, nil
}

// Pool returns the pool that the client was made with, to begin the transactions of InTx with. Clients made by InTx return it, too.
func (c *Client) Pool() *pgxpool.Pool { return c.pool }

// InTx returns a client that makes its calls in a transaction: others see its writes when tx commits, and its own reads see
// them before. It is as safe for concurrent use as tx is: not. It cannot subscribe, nor be the client of a consumer.
// The transaction's search path is the same after each call as before.
func (c *Client) InTx(tx pgx.Tx) *Client {
	bound := *c
	bound.db, bound.tx, bound.sql = nil, tx, c.txSQL
	if tx != nil {
		bound.db = utf8Tx{tx}
	}
	return &bound
}

// checkUsable reports a transaction that is nil as an error, not as a panic.
func (c *Client) checkUsable() error {
	if c.db == nil {
		return newInvalidError(FieldTx, "nil", "must be a transaction that has begun")
	}
	return nil
}

// queryValue runs a statement that calls a function for one value.
func (c *Client) queryValue(ctx context.Context, about call, sql string, value any, args ...any) error {
	if err := c.checkUsable(); err != nil {
		return err
	}
	rows, err := c.db.Query(ctx, sql, args...)
	if err != nil {
		return c.explainError(err, about)
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return c.explainError(err, about)
		}
		return c.explainError(errNothing, about)
	}
	// What restores the path, and what notifies, comes after the value and is not looked at.
	into := make([]any, len(rows.FieldDescriptions()))
	into[0] = value
	if err := rows.Scan(into...); err != nil {
		return c.explainError(err, about)
	}
	rows.Close()
	return c.explainError(rows.Err(), about)
}

// Version is the version of Message DB in the database, as "1.3.0". The error is a [*NotInstalledError] if it is not there.
func (c *Client) Version(ctx context.Context) (version string, err error) {
	err = c.queryValue(ctx, call{doing: "asking for the version of the store"}, c.sql.storeVersion, &version)
	return version, err
}

// StreamVersion is the position of the last message of a stream, [NoStreamVersion] if there is none.
func (c *Client) StreamVersion(ctx context.Context, stream StreamName) (int64, error) {
	if err := validName(FieldStream, stream.String()); err != nil {
		return 0, err
	}
	var version *int64
	err := c.queryValue(ctx, call{doing: "asking for the version of stream", stream: stream}, c.sql.version, &version, stream.String())
	if err != nil {
		return 0, err
	}
	if version == nil {
		return NoStreamVersion, nil
	}
	return *version, nil
}

// AcquireLock waits for the lock of a stream's category, which every write takes, and holds it until the transaction ends:
// nobody else writes to the category before. The client must be one of [Client.InTx]. It returns the key of the lock. To
// write several categories in one transaction, take their locks in one order everywhere: else two can wait for each other.
func (c *Client) AcquireLock(ctx context.Context, stream StreamName) (key int64, err error) {
	if c.tx == nil {
		return 0, newInvalidError(FieldTx, "nil", "a lock lasts as long as its transaction: use InTx")
	}
	if err := validName(FieldStream, stream.String()); err != nil {
		return 0, err
	}
	err = c.queryValue(ctx, call{doing: "locking the category of stream", stream: stream}, c.sql.lock, &key, stream.String())
	return key, err
}
