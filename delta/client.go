package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Client informs Delta of objects and, once started, keeps their resources in line. Several clients, in one process or
// many, can share a database, each with its own controllers. All methods are safe for concurrent use. Any that takes input
// returns an *[InputError] for what breaks a rule, and any that asks the database [ErrNoSchema] where the schema is missing or old.
type Client struct {
	pool   *pgxpool.Pool
	config Config
	// retained says which retentions of synced resources the user has set.
	retained    syncedRetentions
	notifier    notifier
	groupCommit groupCommit
	events      events
	failures    failures
	// stopping ends when Stop does not wait for Work and Inform any longer.
	stopping   context.Context //nolint:containedctx // it is the client's life, not a call's
	cancelWork context.CancelFunc
	timing     timing
	// limits, claims and snoozes are those of all kinds, on this client's workers and on those that it was registered on.
	limits  *namespaceLimits
	claims  *activities.Claims
	snoozes *activities.Snoozes
	// paces are those of each kind.
	paces map[string]*pace
	// telemetry is nil where there is none.
	telemetry *telemetry
	carriers  carrierReader
	// propagators have values of the context of an inform reach its Work.
	propagators propagators
	figures     *figures
	metrics     *metrics
	awaiter     awaiter
	gate        postgresGate
	encoding    encodingCheck
	// attributes tells that the Temporal namespace has Delta's search attributes, as the engine knows that was started last.
	attributes atomic.Bool

	// life guards Start and Stop against each other.
	life sync.Mutex
	// condition is how the client stands, also while Start or Stop is under way.
	condition condition
	// connection is for calls that need Temporal, whether the client was started or not.
	connection connection

	// dispatchers are those of the kinds that this client dispatches while it runs.
	dispatchersMu sync.RWMutex
	dispatchers   map[string]*dispatcher
}

// defaultAbandonAfter is how long Work may go on after its context ended.
const defaultAbandonAfter = 3 * time.Second

// timing is what tests shorten.
type timing struct {
	lease, poll, abandonAfter, temporalTimeout time.Duration
	// dispatch bounds a round of a dispatcher, and stuck is how long one takes that is given up.
	dispatch, stuck time.Duration
	// measure is how often what Telemetry is told of client and database is measured.
	measure time.Duration
}

// NewClient makes a client on a pool, which stays the caller's. It connects to nothing yet. The config is copied.
//
// It returns an error for a nil pool or config, or a pool whose default_query_exec_mode is exec or simple_protocol, and an
// *[InputError] for a field that breaks its rule.
func NewClient(pool *pgxpool.Pool, config *Config) (*Client, error) {
	if pool == nil {
		return nil, errors.New("delta: pool is nil: give an open *pgxpool.Pool")
	}
	if mode := pool.Config().ConnConfig.DefaultQueryExecMode; mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol {
		return nil, fmt.Errorf("delta: the pool's default_query_exec_mode is %q, which sends arguments without their types. "+
			"It must be another one: a pooler that has no prepared statements does with cache_describe", mode)
	}
	if config == nil {
		return nil, errors.New("delta: config is nil: &delta.Config{} is a client that only informs")
	}
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	copied := config.WithDefaults()
	controllers, err := config.Controllers.withSettings(config.Kinds)
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	copied.Controllers = controllers
	c := &Client{
		pool:     pool,
		config:   copied,
		retained: config.syncedRetentions(),
		notifier: notifier{pool: pool, log: copied.Logger},
		timing: timing{
			lease:           activities.DispatchLease,
			poll:            copied.DispatchPollInterval,
			abandonAfter:    defaultAbandonAfter,
			temporalTimeout: 10 * time.Second,
			dispatch:        dispatchTimeout,
			stuck:           dispatchStuck,
			measure:         measureEvery,
		},
	}
	if c.propagators, err = c.findPropagators(); err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	c.condition.done, c.telemetry = make(chan struct{}), newTelemetry(copied.Telemetry, copied.Logger)
	c.events.telemetry = c.telemetry
	c.events.log, c.awaiter.pool = copied.Logger, pool
	c.failures.client, c.failures.mostBytes, c.failures.log.client, c.failures.log.window = c, maxHandedBytes, c, failureWindow
	c.limits = newNamespaceLimits(pool, c.wakeDispatchers)
	c.limits.setBounds(c.boundsOf(nil))
	c.claims = activities.NewClaims(pool, copied.Logger)
	c.snoozes = activities.NewSnoozes(pool, copied.Logger)
	c.paces = map[string]*pace{}
	for _, kind := range copied.Controllers.kindNames() {
		settings := copied.Controllers.byKind[kind].settings
		c.paces[kind] = newPace(settings.Parallelism, settings.RateLimit > 0)
	}
	c.figures = newFigures(pool, copied.Logger, copied.Controllers.kindNames())
	c.metrics = &metrics{client: c}
	c.connection = newConnection()
	c.stopping, c.cancelWork = context.WithCancel(context.Background())
	c.encoding.pool = pool
	c.gate = postgresGate{pool: pool, log: copied.Logger, stopping: c.stopping}
	c.groupCommit.writeOne, c.groupCommit.writeGroup, c.groupCommit.stuckAfter = c.informOne, c.informGroup, defaultStuckAfter
	return c, nil
}

// Start begins to work the kinds that the client has controllers for, and returns when it does. Work and Inform inherit
// the values of ctx. When ctx ends the client stops at once, as with a Stop whose context has ended.
//
// It returns [ErrNoSchema] where the schema is missing, an *[InputError] where a setting of the pool's connections keeps Delta from being right,
// which names it, [ErrOtherInstallation] where another database uses the prefix in
// the Temporal namespace, and an error with address and reason where Temporal cannot be reached within 10 seconds; informing
// works in any case, and Start can be tried again. A client can be started once.
func (c *Client) Start(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	switch now, _ := c.condition.currentStage(); {
	case now == stageStarted:
		return errors.New("delta: start: the client has been started already")
	case now == stageStopped:
		return errors.New("delta: start: the client has been stopped; make a new one")
	case len(c.config.Controllers.kindNames()) == 0:
		return errors.New("delta: start: Config.Controllers is empty: a client without controllers only informs, and needs no start")
	}
	c.condition.enterStage(stageStarting)
	running, err := startEngine(ctx, c)
	c.condition.noteStarted(running, err)
	if err != nil {
		return fmt.Errorf("delta: start: %w", err)
	}
	c.connection.setRunning(running)
	running.onEnd = context.AfterFunc(ctx, func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.stop(ended, fmt.Errorf("delta: the context of Start has ended: %w", context.Cause(ctx)))
	})
	return nil
}

// Stop takes no new work and waits for what is running, until ctx ends: then the contexts of Work and Inform are
// cancelled, their attempts are closed as failed, and others go on with them. It returns the error of ctx if it had to
// cancel, and nil otherwise. A Stop that comes while another one waits has that one wait no longer than its own ctx. A client
// that was never started has only to end its connection to Temporal, if it made one. Once stopped it cannot be started; it
// still informs.
func (c *Client) Stop(ctx context.Context) error { return c.stop(ctx, nil) }

// stop is Stop. Where nobody called that, unasked says why the client stops.
func (c *Client) stop(ctx context.Context, unasked error) (err error) {
	if !c.life.TryLock() {
		patient := context.AfterFunc(ctx, c.cancelWork)
		c.life.Lock()
		patient()
	}
	defer c.life.Unlock()
	defer func() { c.condition.noteStopped(cmp.Or(unasked, err), unasked != nil) }()
	defer c.waitForInforms(ctx)
	defer c.figures.close(ctx)
	defer c.events.close()
	defer c.failures.close()
	defer c.connection.close()
	defer c.cancelWork()
	now, running := c.condition.currentStage()
	if now != stageStarted {
		return nil
	}
	c.condition.enterStage(stageStopping)
	c.setDispatchers(nil)
	return running.stop(ctx)
}

// waitForInforms waits for informs and notifications that are under way. One that Postgres does not answer is not waited for longer than
// ctx and some seconds.
func (c *Client) waitForInforms(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.groupCommit.wait()
		c.notifier.wait()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(informPatience):
	}
}

// informPatience is how long Stop waits for informs that are under way, after its context has ended.
const informPatience = 250 * time.Millisecond

// temporalNames are the ids that the client uses in Temporal.
func (c *Client) temporalNames() temporalNames {
	return temporalNames{prefix: c.config.WorkflowIDPrefix, queue: c.config.TaskQueue}
}

// setDispatchers says which dispatchers this client has.
func (c *Client) setDispatchers(dispatchers map[string]*dispatcher) {
	c.dispatchersMu.Lock()
	defer c.dispatchersMu.Unlock()
	c.dispatchers = dispatchers
}

// wakeOwnDispatcher wakes this client's dispatcher of a kind for so many rows that a statement has made due, and reports whether there is one.
func (c *Client) wakeOwnDispatcher(kind string, due int) bool {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	d := c.dispatchers[kind]
	if d == nil {
		return false
	}
	d.wake(due)
	return true
}

// wakeDispatchers wakes this client's dispatchers.
func (c *Client) wakeDispatchers() {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	for _, d := range c.dispatchers {
		d.wake(1)
	}
}

// hasOthersKind tells whether there is a kind among the objects that this client does not dispatch.
func (c *Client) hasOthersKind(params []deltatype.ObjectInformParams) bool {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	return slices.ContainsFunc(params, func(p deltatype.ObjectInformParams) bool { return c.dispatchers[p.Kind] == nil })
}
