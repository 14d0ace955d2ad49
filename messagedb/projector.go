package messagedb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/backoff"
)

// TxHandler is called with each message, one after another, and a transaction that the position is saved in. What it writes with tx is there
// if, and only if, the message counts as handled. It must not end the transaction, and must return the error of a statement that failed.
type TxHandler func(ctx context.Context, tx pgx.Tx, m *Message) error

// ProjectorConfig configures a [Projector]. Name and Category are required.
type ProjectorConfig struct {
	// Name distinguishes projections.
	Name string
	// Version is the version of the projection's code and tables. After it was raised, the new version is built from the first message on,
	// beside the live one, and takes its place when it has caught up. Default: 1.
	Version int
	// Category is the category to read.
	Category string
	// Pool connects to the database with the projection's tables and the table of [MigrateProjections]. Default: that of the client.
	Pool *pgxpool.Pool
	// Schema has the table of [MigrateProjections]. Default: [DefaultProjectionSchema].
	Schema string
	// Handler is called with messages of types that [Project] was not called for. Default: they are passed over.
	Handler TxHandler
	// Switch is called in the transaction that makes this version the live one, and the one that was live retired: to let a view select from
	// this version's tables, for example. The projector of the version that was live cannot write between. Default: nothing is done.
	Switch func(ctx context.Context, tx pgx.Tx) error
	// PositionInterval is after how many messages the position is saved, of those that are passed over. Default: [DefaultPositionInterval].
	PositionInterval int
	// From is the global position to begin at. Default: 0, the beginning.
	From int64
	// Correlation, Condition and BatchSize are as in [CategoryOptions].
	Correlation string
	Condition   string
	BatchSize   int
	// Polling, Notify, ErrorPolicy and Retried are as in [ConsumerConfig].
	Polling     PollingStrategy
	Notify      bool
	ErrorPolicy ErrorPolicy
	Retried     func(err error)
}

// WithDefaults returns the configuration with its defaults filled in, but for those of [ConsumerConfig].
func (c ProjectorConfig) WithDefaults() ProjectorConfig {
	if c.Version == 0 {
		c.Version = 1
	}
	if c.Schema == "" {
		c.Schema = DefaultProjectionSchema
	}
	if c.Polling == nil {
		c.Polling = IdlePolling(DefaultPollingInterval)
	}
	if c.Retried == nil {
		c.Retried = func(error) {}
	}
	return c
}

func (c ProjectorConfig) validate() error {
	if c.Name == "" {
		return newInvalidError(FieldName, "", "must not be empty")
	}
	if err := validText(FieldName, c.Name); err != nil {
		return err
	}
	if c.Version < 1 || c.Version > 1<<31-1 {
		return newInvalidError(FieldVersion, c.Version, "must be positive, or 0 for the default of 1")
	}
	return validSchema(c.Schema)
}

// Projector handles the messages of a category one at a time, those of one stream in order, each in a transaction that its position is saved
// in. A message is delivered at least once, and what its handler writes with the transaction has effect exactly once: if the process dies,
// if the commit's answer is lost, and if several projectors of one name and version run at the same time, which share the work then.
// Its methods are safe for concurrent use.
type Projector struct {
	client   *Client
	db       utf8Pool
	config   ProjectorConfig
	row      projectionRow
	consumer *Consumer

	mu      sync.Mutex
	running *projectorRun
	stats   ProjectorStats

	// Of the goroutine of Run.
	saved    int64 // the position of the row, as far as is known
	building bool
	again    bool  // begin at the position of the row
	failure  error // what Run is to return
	// retry is the delay before another attempt at what failed for a while. It grows over all that Run begins again for, until something succeeds.
	retry *backoff.Backoff

	unsure atomic.Bool // the connection was lost, so the store may be another one now
}

type projectorRun struct {
	stopping bool
	done     chan struct{}
}

// ProjectorStats are the counts of a projector since it was made.
type ProjectorStats struct {
	ConsumerStats
	// Overtaken counts messages that another projector of the same name and version had handled when this one was about to. Rewound counts
	// how often the position was found to be less than it was, since the database of the projection was restored from a backup.
	Overtaken, Rewound int64
	// Live reports whether this version was the live one when it was looked at last.
	Live bool
}

// NewProjector makes a projector, which does nothing before [Projector.Run]. Register its handlers with [Project]. It returns an
// [*InvalidError] for an invalid configuration.
func (c *Client) NewProjector(config ProjectorConfig) (*Projector, error) {
	full := config.WithDefaults()
	if err := full.validate(); err != nil {
		return nil, err
	}
	if full.Pool == nil {
		full.Pool = c.pool
	}
	p := &Projector{
		client: c, db: utf8Pool{full.Pool}, config: full, row: newProjectionRow(full.Schema, full.Name, full.Version, full.Category),
		retry: backoff.New(shortestRetry, longestRetry),
	}
	consumer, err := c.NewConsumer(p.consumerConfig())
	if err != nil {
		return nil, err
	}
	consumer.keeper = p
	p.consumer = consumer
	return p, nil
}

// consumerConfig returns the configuration of the consumer that reads for the projector. It writes no position stream, but records what it skips.
func (p *Projector) consumerConfig() ConsumerConfig {
	c := p.config
	id := fmt.Sprintf("%s%s%d", c.Name, CompoundSeparator, c.Version)
	config := ConsumerConfig{
		Category: c.Category, Identifier: id, PositionStream: StreamName(withType(c.Category, positionType) + StreamNameSeparator + id),
		PositionInterval: c.PositionInterval, From: c.From, Correlation: c.Correlation, Condition: c.Condition, BatchSize: c.BatchSize,
		Polling: p.watchBatches(c.Polling), Notify: c.Notify, ErrorPolicy: c.ErrorPolicy,
		Retried: func(err error) {
			p.noteError(err)
			c.Retried(err)
		},
	}
	if c.Handler != nil {
		config.Handler = func(ctx context.Context, m *Message) error {
			return p.applyMessage(ctx, m, func(tx pgx.Tx) error { return c.Handler(ctx, tx, m) })
		}
	}
	return config
}

// Project registers the handler of one message type, and decodes the data of its messages into a T. See [TxHandler] and [Handle].
func Project[T any](p *Projector, messageType string, project func(ctx context.Context, tx pgx.Tx, data T, m *Message) error) {
	if project == nil {
		Handle[T](p.consumer, messageType, nil)
		return
	}
	Handle(p.consumer, messageType, func(ctx context.Context, data T, m *Message) error {
		return p.applyMessage(ctx, m, func(tx pgx.Tx) error { return project(ctx, tx, data, m) })
	})
}

// Name is the name of the projection: see [ProjectorConfig].
func (p *Projector) Name() string { return p.config.Name }

// Version is the version of the projection's code and tables: see [ProjectorConfig].
func (p *Projector) Version() int { return p.config.Version }

// SkippedStream is where the projector records what the error policy passed over: CATEGORY:skipped-NAME+VERSION.
func (p *Projector) SkippedStream() StreamName { return p.consumer.SkippedStream() }

// Stats returns the counts as they are now, without a round trip.
func (p *Projector) Stats() ProjectorStats {
	p.mu.Lock()
	stats := p.stats
	p.mu.Unlock()
	stats.ConsumerStats = p.consumer.Stats()
	return stats
}

func (p *Projector) updateStats(change func(*ProjectorStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}

// Lag asks the database for the messages that the projector has not handled: see [Consumer.Lag].
func (p *Projector) Lag(ctx context.Context) (Lag, error) { return p.consumer.Lag(ctx) }

// Run projects until ctx ends or [Projector.Stop] is called, and returns nil then. It returns earlier with a [*HandlerError] if the error
// policy says to stop, with a [*ProjectionError] if this version must not go on, with an error of Switch, or with an error of a server that is
// not transient. Others are retried: see [IsTransient]. A projector can run again.
func (p *Projector) Run(ctx context.Context) error {
	r, err := p.beginRun()
	if err != nil {
		return err
	}
	defer p.endRun(r)
	p.retry.Reset()
	for {
		p.again, p.failure = false, nil
		err := p.consumer.Run(ctx)
		rewound := new(RewoundError)
		switch {
		case p.failure != nil:
			return p.failure
		case errors.As(err, &rewound):
			return p.wrongStore(rewound)
		case err != nil || !p.again || ctx.Err() != nil:
			return err
		}
	}
}

func (p *Projector) beginRun() (*projectorRun, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		return nil, errRunning
	}
	p.running = &projectorRun{done: make(chan struct{})}
	return p.running, nil
}

func (p *Projector) endRun(r *projectorRun) {
	p.mu.Lock()
	p.running = nil
	p.mu.Unlock()
	close(r.done)
}

// Stop ends [Projector.Run] when the message that is being handled has been, and waits for that: see [Consumer.Stop].
func (p *Projector) Stop(ctx context.Context) error {
	p.mu.Lock()
	r := p.running
	if r != nil {
		r.stopping = true
	}
	p.mu.Unlock()
	if r == nil {
		return nil
	}
	// Between two runs of the consumer there is nothing to stop: the next one looks at r.stopping.
	if err := p.consumer.Stop(ctx); err != nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Projector) isStopping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running != nil && p.running.stopping
}

// interruptRun ends the consumer's run. It does not cancel a handler that is running.
func (c *Consumer) interruptRun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		c.running.stop()
	}
}

// readingContext ends when the consumer must stop reading.
func (c *Consumer) readingContext(otherwise context.Context) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return otherwise
	}
	return c.running.reading
}

// failRun makes Run return an error.
func (p *Projector) failRun(err error) error {
	p.failure = err
	p.consumer.interruptRun()
	return err
}
