package messagedb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// DefaultPositionInterval is after how many messages a consumer saves its position.
const DefaultPositionInterval = 100

// saveTimeout is how long a consumer that ends tries to save its position.
const saveTimeout = 5 * time.Second

// ConsumerConfig configures a [Consumer]. Category is required.
type ConsumerConfig struct {
	// Category is the category to read.
	Category string
	// Identifier distinguishes consumers of one category, so that each has a position of its own. Required with Group, where all
	// members have the same one. Default: none.
	Identifier string
	// Group makes it one member of a consumer group. Each member must run once. Default: it reads everything.
	Group *Group
	// PreviousSize is the size that the group had before: a member without a position begins at the least one of the members
	// of that size, so that nothing is lost when a group grows or shrinks. Stop these members first. Default: 0, none.
	PreviousSize int
	// PositionStream is where the position is saved. Default: CATEGORY:position, or CATEGORY+position where the category has
	// types; then -IDENTIFIER; then, in a group, +MEMBER+SIZE. That of a consumer without a group is Eventide's.
	PositionStream StreamName
	// PositionInterval is after how many messages the position is saved. At most this many messages are handled again after a crash,
	// and the one that was saved last. Default: [DefaultPositionInterval].
	PositionInterval int
	// From is the global position to begin at where none is saved. Default: 0, the beginning.
	From int64
	// Correlation, Condition and BatchSize are as in [CategoryOptions].
	Correlation string
	Condition   string
	BatchSize   int
	// Polling is how it polls. Default: IdlePolling(DefaultPollingInterval).
	Polling PollingStrategy
	// Notify lets writes of clients that notify wake it; see [Config]. It goes on polling, too. Default: false.
	Notify bool
	// ErrorPolicy decides about a message that cannot be handled. Default: the consumer stops at the first error.
	ErrorPolicy ErrorPolicy
	// Rewind decides what happens when the store has gone back behind the position: [RewindStop] or [RewindRestart]. Default: RewindStop.
	Rewind RewindPolicy
	// Handler is called with messages of types that [Handle] was not called for. Default: they are passed over.
	Handler Handler
	// Retried is called with each error that is retried. These are logged in any case. Default: nil.
	Retried func(err error)
}

// WithDefaults returns the configuration with its defaults filled in.
func (c ConsumerConfig) WithDefaults() ConsumerConfig {
	if c.PositionInterval == 0 {
		c.PositionInterval = DefaultPositionInterval
	}
	if c.PositionStream == "" {
		c.PositionStream = c.positionStream(c.Group)
	}
	if c.Polling == nil {
		c.Polling = IdlePolling(DefaultPollingInterval)
	}
	if c.Retried == nil {
		c.Retried = func(error) {}
	}
	if c.Rewind == "" {
		c.Rewind = RewindStop
	}
	c.ErrorPolicy = c.ErrorPolicy.withDefaults()
	return c
}

func (c ConsumerConfig) positionStream(group *Group) StreamName {
	name := withType(c.Category, positionType)
	if c.Identifier != "" {
		name += StreamNameSeparator + c.Identifier
	}
	if group != nil {
		name += fmt.Sprintf("%s%d%s%d", CompoundSeparator, group.Member, CompoundSeparator, group.Size)
	}
	return StreamName(name)
}

func (c ConsumerConfig) validate() error {
	if c.Group != nil { // also one of size 0, with which a reader has no group: its positions would be those of a member
		if err := c.Group.validate(); err != nil {
			return err
		}
	}
	if c.Identifier == "" && c.Group != nil {
		return newInvalidError(FieldIdentifier, "", "must not be empty with a group, because it names the positions of the members")
	}
	if err := validText(FieldIdentifier, c.Identifier); err != nil {
		return err
	}
	if err := validName(FieldStream, c.PositionStream.String()); err != nil {
		return err
	}
	if c.PositionStream.Category() == c.Category {
		return newInvalidError(FieldStream, c.PositionStream, "the position stream must not be in the category that is consumed")
	}
	if c.PositionInterval < 1 {
		return newInvalidError(FieldPositionInterval, c.PositionInterval, "must be positive, or 0 for the default of 100")
	}
	if c.PreviousSize != 0 && (c.Group == nil || c.PreviousSize < 1 || c.PreviousSize > MaxGroupSize) {
		return newInvalidError(FieldPreviousSize, c.PreviousSize, "must be the size of a group, and is for members of one only")
	}
	if err := c.Rewind.validate(); err != nil {
		return err
	}
	return c.ErrorPolicy.validate()
}

// Consumer handles the messages of a category at least once, one at a time and those of one stream in order, and remembers
// in the store how far it has come. After a crash it begins again at the last position that it saved, inclusively: handlers
// must be idempotent. Its methods are safe for concurrent use.
type Consumer struct {
	client  *Client
	config  ConsumerConfig
	options CategoryOptions
	routes  map[string]Handler
	keeper  positionKeeper // of the position; nil if the store keeps it

	mu      sync.Mutex
	bad     error // what Handle was given that cannot be
	running *run
	stats   ConsumerStats
}

// run is one call of Run.
type run struct {
	id     string
	other  string             // the last run of somebody else's that wrote the position meanwhile
	stop   context.CancelFunc // reads no more
	cancel context.CancelFunc // and does not wait for handlers either
	done   chan struct{}
	dead   atomic.Bool // set by tests: as if the process had died

	handling context.Context //nolint:containedctx // of handlers, for as long as Run
	reading  context.Context //nolint:containedctx // of what stops first
	version  int64           // of the position stream
	unsaved  int
	last     place           // the position to save
	record   ProposedMessage // that holds it, while it is being saved
}

// NewConsumer makes a consumer, which does nothing before [Consumer.Run]. Register its handlers with [Handle]. It returns an
// [*InvalidError] for an invalid configuration.
func (c *Client) NewConsumer(config ConsumerConfig) (*Consumer, error) {
	full := config.WithDefaults()
	options, err := CategoryOptions{
		From: full.From, BatchSize: full.BatchSize, Correlation: full.Correlation, Condition: full.Condition, Group: full.Group,
	}.prepareOptions(full.Category)
	if err != nil {
		return nil, err
	}
	if err := full.validate(); err != nil {
		return nil, err
	}
	if err := c.prepareFeed(&feed{batch: options.BatchSize}, full.Polling); err != nil {
		return nil, err
	}
	return &Consumer{client: c, config: full, options: options, routes: map[string]Handler{}}, nil
}

// Handle registers the handler of one message type, and decodes the data of its messages into a T. Data that does not decode is an error of the
// message: the error policy applies, without retries. Call it before [Consumer.Run], which returns an
// [*InvalidError] if the type is empty or has a handler already, or if the handler is nil.
func Handle[T any](c *Consumer, messageType string, handle func(ctx context.Context, data T, m *Message) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case messageType == "":
		c.bad = newInvalidError(FieldType, "", "must not be empty")
	case handle == nil:
		c.bad = newInvalidError(FieldHandler, "nil", "must be a function")
	case c.routes[messageType] != nil:
		c.bad = newInvalidError(FieldType, messageType, "must not have two handlers")
	}
	c.routes[messageType] = func(ctx context.Context, m *Message) error {
		data, err := Decode[T](m)
		if err != nil {
			return err
		}
		return handle(ctx, data, m)
	}
}

// PositionStream is where the position is saved.
func (c *Consumer) PositionStream() StreamName { return c.config.PositionStream }

var (
	errRunning = errors.New("messagedb: this consumer runs already")
	errStopped = errors.New("stopped")
)

// Run consumes until ctx ends or [Consumer.Stop] is called, and returns nil then, with the position saved. It returns
// earlier with a [*HandlerError] if the error policy says to stop, with a [*PositionConflictError] if another consumer
// writes the same positions, with a [*RewoundError] if the store has gone back behind the position and the policy says to stop, or
// with an error of the server that is not transient. Others are retried: see [IsTransient].
// The position of what was handled is saved in any case, if the database lets it be. A consumer can run again.
func (c *Consumer) Run(ctx context.Context) error {
	r, err := c.beginRun(ctx)
	if err != nil {
		return err
	}
	defer c.endRun(r)
	from, at, err := c.resumeRun(r)
	if err != nil {
		if r.reading.Err() != nil {
			return nil
		}
		return err
	}
	f := c.client.categoryFeed(c.config.Category, c.options)
	if err := c.client.prepareFeed(f, c.config.Polling); err != nil {
		return err
	}
	f.onError, f.onBatch = c.reportRetry, func(int, int) {}
	if c.config.Notify {
		woken, leave := c.client.notifier.addWaiter(c.config.Category)
		defer leave()
		f.woken = woken
	}
	process := func(m *Message) error { return c.processMessage(r, m) }
	err = f.run(r.reading, from, at, process)
	for errors.As(err, new(*RewoundError)) && c.config.Rewind == RewindRestart {
		if err = c.rewindRun(r, err); err == nil {
			err = f.run(r.reading, 0, place{position: -1}, process)
		}
	}
	if errors.As(err, new(*RewoundError)) {
		r.forgetUnsaved() // it would be a position in what the store is now
	}
	if errors.Is(err, errStopped) {
		err = nil
	}
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	return errors.Join(err, c.saveUnsaved(saveCtx, r))
}

func (c *Consumer) beginRun(ctx context.Context) (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad != nil {
		return nil, c.bad
	}
	if len(c.routes) == 0 && c.config.Handler == nil {
		return nil, newInvalidError(FieldHandler, "none", "there must be one: call Handle or set ConsumerConfig.Handler")
	}
	if c.running != nil {
		return nil, errRunning
	}
	r := &run{id: NewID(), done: make(chan struct{})}
	r.handling, r.cancel = context.WithCancel(ctx)
	r.reading, r.stop = context.WithCancel(r.handling)
	c.running = r
	return r, nil
}

func (c *Consumer) endRun(r *run) {
	r.stop()
	r.cancel()
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	close(r.done)
}

// Stop ends [Consumer.Run] when the message that is being handled has been, and returns when it has saved the position. If
// ctx ends first, the context of the handler is cancelled and Stop returns ctx's error at once. It does nothing if the
// consumer does not run. A handler must not call it: it would wait for itself.
func (c *Consumer) Stop(ctx context.Context) error {
	c.mu.Lock()
	r := c.running
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	r.stop()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		r.cancel()
		return ctx.Err()
	}
}

// processMessage handles one message, or applies the error policy to it, and counts it.
func (c *Consumer) processMessage(r *run, m *Message) error {
	handle := c.routes[m.Type]
	if handle == nil {
		handle = c.config.Handler
	}
	count := func(s *ConsumerStats) { s.Handled++ }
	if handle == nil {
		count = func(s *ConsumerStats) { s.Ignored++ }
	} else if failed := c.callHandler(r, handle, m); failed != nil {
		if r.reading.Err() != nil {
			return errStopped // it will be handled again
		}
		if !c.config.ErrorPolicy.Skip {
			return failed
		}
		if err := c.recordSkipped(r, failed); err != nil {
			return err
		}
		count = func(s *ConsumerStats) { s.Skipped++ }
	}
	r.last = place{m.GlobalPosition, m.ID}
	r.unsaved++
	c.mu.Lock()
	count(&c.stats)
	c.stats.Position = r.last.position
	c.mu.Unlock()
	if r.unsaved < c.config.PositionInterval {
		return nil
	}
	// What was not saved must not grow beyond the interval, so nothing is handled meanwhile.
	return c.retryUntilStopped(r, func(ctx context.Context) error { return c.saveUnsaved(ctx, r) })
}

// callHandler calls the handler until it succeeds or the retries of the error policy are used up.
func (c *Consumer) callHandler(r *run, handle Handler, m *Message) *HandlerError {
	retry := backoff.New(c.config.ErrorPolicy.Delay, c.config.ErrorPolicy.MaxDelay)
	for n := 1; ; n++ {
		err := callRecovering(r.handling, handle, m)
		if err == nil {
			return nil
		}
		failed := &HandlerError{Message: m, Attempts: n, Err: err}
		decode := new(DecodeError)
		if n > c.config.ErrorPolicy.Retries || errors.As(err, &decode) || r.reading.Err() != nil {
			return failed
		}
		c.reportRetry(failed)
		if backoff.Pause(r.reading, retry.Delay()) != nil {
			return failed
		}
	}
}

// reportRetry counts, logs and reports an error that is retried.
func (c *Consumer) reportRetry(err error) {
	c.mu.Lock()
	c.stats.Retried++
	c.mu.Unlock()
	c.client.config.Logger.Warn("messagedb: consumer tries again", "category", c.config.Category, "position_stream", c.config.PositionStream, "error", err)
	c.config.Retried(err)
}

// retryUntilStopped calls do until it succeeds, fails with an error that is not transient, or the consumer is stopped.
func (c *Consumer) retryUntilStopped(r *run, do func(ctx context.Context) error) error {
	err := retryTransient(r.reading, c.reportRetry, do)
	if err != nil && r.reading.Err() != nil {
		return errStopped
	}
	return err
}
