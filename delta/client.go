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
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Client informs Delta of objects and, once started, keeps their resources in sync with the outside. Several clients, in
// one process or many, can share a database, each with its own controllers. All methods are safe for concurrent use. A
// method that takes input returns an *[InputError] for input that breaks a rule. A method that queries the database returns
// [ErrNoSchema] if the schema is missing or old.
type Client struct {
	pool   *pgxpool.Pool
	config Config
	// retained reports which retentions of synced resources the user has set.
	retained    syncedRetentions
	notifier    notifier
	groupCommit groupCommit
	events      events
	failures    failures
	// stopping ends when Stop no longer waits for Work and Inform.
	stopping   context.Context //nolint:containedctx // it is the client's life, not a call's
	cancelWork context.CancelFunc
	timing     timing
	// limits, claims and snoozes are shared by all kinds, by this client's own workers and by the workers it was registered
	// on.
	limits  *namespaceLimits
	claims  *activities.Claims
	snoozes *activities.Snoozes
	// paces has the pace of each kind.
	paces map[string]*pace
	// telemetry is nil if Config.Telemetry is.
	telemetry *telemetry
	carriers  carrierReader
	// propagators carry values from the context of an inform to its Work.
	propagators propagators
	figures     *figures
	metrics     *metrics
	awaiter     awaiter
	gate        postgresGate
	encoding    encodingCheck
	// coder encodes and decodes stored objects.
	coder *db.Coder
	// attributes reports whether the Temporal namespace has Delta's search attributes, as the engine that was started last
	// found them.
	attributes atomic.Bool

	// life guards Start and Stop against each other.
	life sync.Mutex
	// condition is the client's stage; it can be read while Start or Stop runs.
	condition condition
	// connection is for calls that need Temporal, whether or not the client was started.
	connection connection

	// dispatchers has a dispatcher for each kind that this client dispatches while it runs.
	dispatchersMu sync.RWMutex
	dispatchers   map[string]*dispatcher
}

// defaultAbandonAfter is how long Work may run after its context ended, before its attempt is closed as failed.
const defaultAbandonAfter = 3 * time.Second

// timing has the durations that tests shorten.
type timing struct {
	lease, poll, abandonAfter, temporalTimeout time.Duration
	// dispatch bounds a round of a dispatcher; a round longer than stuck counts as hung.
	dispatch, stuck time.Duration
	// measure is the interval at which client and database are measured for Telemetry.
	measure time.Duration
	// slowLease is how long a lease takes before its dispatcher looks for a crowd.
	slowLease time.Duration
}

// NewClient makes a client on a pool, which stays the caller's. It connects to nothing yet. The config is copied.
//
// It returns an error for a nil pool or config, for a pool whose default_query_exec_mode is exec or simple_protocol, and an
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
			slowLease:       slowLease,
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
	c.encoding.pool, c.coder = pool, db.NewCoder(copied.ObjectCodec, copied.ObjectHashKey)
	c.gate = postgresGate{pool: pool, log: copied.Logger, stopping: c.stopping}
	c.groupCommit.writeOne, c.groupCommit.writeGroup, c.groupCommit.stuckAfter = c.informOne, c.informGroup, defaultStuckAfter
	return c, nil
}

// Start begins to work the kinds that the client has controllers for, and returns when everything runs. Work and Inform
// inherit the values of ctx. When ctx ends, the client stops at once, as with a Stop whose context has ended.
//
// It returns [ErrNoSchema] if the schema is missing, an *[InputError] if a setting of the pool's connections would make
// Delta's statements wrong, [ErrOtherInstallation] if another database uses the prefix in the Temporal namespace, and
// [ErrRestoredDatabase] if the database was restored from a backup, and nobody has decided what it is. If Temporal cannot
// be reached within 10 seconds, the error has the address and the reason. Informs work in any case, and
// Start can be tried again. A client can be started once.
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

// Stop takes no new work and waits until running work has ended, or ctx has. Then it cancels the contexts of Work and
// Inform; their attempts are closed as failed, and other clients go on with the resources. It returns the error of ctx if
// it had to cancel, and nil otherwise. A second Stop shortens the wait of the first to its own ctx. For a client that was
// never started, Stop only closes the connection to Temporal, if there is one. A stopped client cannot be started again; it
// still informs.
func (c *Client) Stop(ctx context.Context) error { return c.stop(ctx, nil) }

// stop is Stop. If nobody called Stop, unasked is the reason why the client stops.
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

// waitForInforms waits for informs and notifications in progress. If Postgres does not answer one, it gives up
// informPatience after ctx has ended.
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

// informPatience is how long Stop waits for informs in progress after its context has ended.
const informPatience = 250 * time.Millisecond

// temporalNames returns the ids that the client uses in Temporal.
func (c *Client) temporalNames() temporalNames {
	return temporalNames{prefix: c.config.WorkflowIDPrefix, queue: c.config.TaskQueue}
}

// setDispatchers sets the dispatchers that this client runs.
func (c *Client) setDispatchers(dispatchers map[string]*dispatcher) {
	c.dispatchersMu.Lock()
	defer c.dispatchersMu.Unlock()
	c.dispatchers = dispatchers
}

// wakeOwnDispatcher wakes this client's dispatcher of a kind, for a number of rows that a statement has made due. It
// reports whether the client has such a dispatcher.
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

// wakeKind wakes the dispatcher of a kind, in this client or in others, for a number of rows that a statement has made due.
// If this client leaves rows to wait for room, others, which may have some, are notified a little later.
func (c *Client) wakeKind(kind string, due int) {
	if !c.wakeOwnDispatcher(kind, due) {
		c.notifier.notifySoon(kind)
	} else if c.limits.isWithholding() {
		c.notifier.notifyLater(kind)
	}
}

// wakeDispatchers wakes all dispatchers of this client.
func (c *Client) wakeDispatchers() {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	for _, d := range c.dispatchers {
		d.wake(1)
	}
}

// hasOthersKind reports whether one of the objects is of a kind that this client does not dispatch: then others must be
// notified.
func (c *Client) hasOthersKind(params []deltatype.ObjectInformParams) bool {
	c.dispatchersMu.RLock()
	defer c.dispatchersMu.RUnlock()
	return slices.ContainsFunc(params, func(p deltatype.ObjectInformParams) bool { return c.dispatchers[p.Kind] == nil })
}
