package delta

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

// engine is what runs between Start and Stop: a worker a kind for its resources, one for its informer, a dispatcher a
// kind, and the listener.
type engine struct {
	client       *Client
	temporal     client.Client
	ownsTemporal bool
	installation string
	names        names
	workers      []worker.Worker
	dispatchers  map[string]*dispatcher

	// cancelLoops ends dispatchers and listener; cancelWork ends the contexts of Work and Inform.
	cancelLoops, cancelWork context.CancelFunc
	stopping                context.Context //nolint:containedctx // it is the engine's life, not a call's
	loops                   sync.WaitGroup
	onEnd                   func() bool
}

// startEngine starts everything, or nothing.
func startEngine(ctx context.Context, c *Client) (_ *engine, err error) {
	e := &engine{client: c, names: names{c.config.WorkflowIDPrefix}, dispatchers: map[string]*dispatcher{}}
	loopCtx, cancelLoops := context.WithCancel(ctx)
	// What activities inherit. It is never cancelled itself, because they answer Temporal with it: the end of ctx reaches
	// Work through Stop, when the workers have stopped taking tasks.
	workCtx := context.WithValue(context.WithoutCancel(ctx), clientKey{}, c)
	e.cancelLoops = cancelLoops
	e.stopping, e.cancelWork = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			_ = e.stop(ended)
		}
	}()

	if err := e.readInstallation(ctx); err != nil {
		return nil, err
	}
	if err := e.connect(ctx); err != nil {
		return nil, err
	}
	// First in Temporal: a database whose prefix is refused there stays free to take another.
	if err := claimPrefix(ctx, e.temporal, e.names, e.installation); err != nil {
		return nil, err
	}
	if err := e.claimDatabase(ctx); err != nil {
		return nil, err
	}
	if err := e.writeSettings(ctx); err != nil {
		return nil, err
	}
	if err := e.startWorkers(ctx, workCtx); err != nil {
		return nil, err
	}

	listener := listener{pool: c.pool, channel: "delta_" + e.installation, log: c.config.Logger, wake: e.wake}
	e.loops.Go(func() { listener.run(loopCtx) })
	for _, d := range e.dispatchers {
		e.loops.Go(func() { d.run(loopCtx) })
	}
	return e, nil
}

// readInstallation learns which installation the database is.
func (e *engine) readInstallation(ctx context.Context) error {
	installation, err := db.New().GetInstallation(ctx, e.client.pool)
	if err != nil {
		return fmt.Errorf("reading the installation: %w", schemaError(err))
	}
	e.installation = installation.ID
	return e.checkPrefix(installation)
}

// claimDatabase fixes the prefix for all clients of the database.
func (e *engine) claimDatabase(ctx context.Context) error {
	installation, err := db.New().ClaimWorkflowIDPrefix(ctx, e.client.pool, e.names.prefix)
	if err != nil {
		return fmt.Errorf("writing the prefix: %w", schemaError(err))
	}
	return e.checkPrefix(installation)
}

func (e *engine) checkPrefix(installation db.Installation) error {
	if there := installation.WorkflowIDPrefix; there != nil && *there != e.names.prefix {
		return inputError("Config.WorkflowIDPrefix", e.names.prefix,
			"must be %q, which other clients of this database use: with two prefixes a resource would have two workflows. "+
				"To change it, stop all clients, terminate the workflows, and run: "+
				"UPDATE delta_installation SET workflow_id_prefix = NULL", *there)
	}
	return nil
}

// connect takes the user's Temporal client, or makes one, and sees that it reaches the server.
func (e *engine) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.client.timing.temporalTimeout)
	defer cancel()
	if e.client.config.Temporal != nil {
		e.temporal = e.client.config.Temporal
		if _, err := e.temporal.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}); err != nil {
			return fmt.Errorf("reaching Temporal through Config.Temporal: %w", err)
		}
		return nil
	}
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return fmt.Errorf("the environment configuration for Temporal: %w", err)
	}
	setDefault(&options.HostPort, client.DefaultHostPort)
	setDefault(&options.Namespace, client.DefaultNamespace)
	options.Logger = log.NewStructuredLogger(e.client.config.Logger)
	e.temporal, err = dial(ctx, options)
	e.ownsTemporal = err == nil
	return err
}

// writeSettings makes this client's settings those in force.
func (e *engine) writeSettings(ctx context.Context) error {
	q, c := db.New(), e.client
	for name, n := range c.config.Namespaces {
		before, err := q.UpsertNamespace(ctx, c.pool, db.UpsertNamespaceParams{
			Name:              name,
			ResourceExpiry:    interval(n.ResourceExpiry),
			SyncedRetention:   interval(n.SyncedResourceRetentionPeriod),
			DegradedRetention: interval(n.DegradedResourceRetentionPeriod),
			DeletedRetention:  interval(n.DeletedResourceRetentionPeriod),
		})
		if err != nil {
			return fmt.Errorf("writing the settings of namespace %q: %w", name, schemaError(err))
		}
		for _, b := range before {
			c.config.Logger.Warn("this client changes the settings of a namespace, for all clients",
				"namespace", name,
				"expiry", n.ResourceExpiry, "expiry_before", b.ResourceExpiry,
				"synced_retention", n.SyncedResourceRetentionPeriod, "synced_retention_before", b.SyncedRetention,
				"degraded_retention", n.DegradedResourceRetentionPeriod, "degraded_retention_before", b.DegradedRetention,
				"deleted_retention", n.DeletedResourceRetentionPeriod, "deleted_retention_before", b.DeletedRetention)
		}
	}
	for kind, r := range c.config.Controllers.byKind {
		_, err := q.UpsertController(ctx, c.pool, db.UpsertControllerParams{Name: kind, InformInterval: interval(e.informInterval(r))})
		if err != nil {
			return fmt.Errorf("writing the settings of kind %q: %w", kind, schemaError(err))
		}
	}
	return nil
}

func (e *engine) informInterval(r registered) time.Duration {
	if r.settings.InformInterval != 0 {
		return r.settings.InformInterval
	}
	return e.client.config.ResourceInformInterval
}

// startWorkers starts each kind's workers, then its schedule.
func (e *engine) startWorkers(ctx, workCtx context.Context) (err error) {
	defer func() {
		// The SDK panics if Config.Temporal is a wrapper around its client.
		if v := recover(); v != nil {
			err = fmt.Errorf("making a Temporal worker with Config.Temporal (%T): %v", e.temporal, v)
		}
	}()
	limits := newNamespaceLimits(e.client.config.Namespaces)
	for kind, r := range e.client.config.Controllers.byKind {
		if err := e.startKind(ctx, workCtx, kind, r, limits); err != nil {
			return fmt.Errorf("kind %q: %w", kind, err)
		}
	}
	return nil
}

func (e *engine) startKind(ctx, workCtx context.Context, kind string, r registered, limits namespaceLimits) error {
	config := e.client.config
	slots := activities.NewSlots(r.settings.Parallelism)
	acts := &activities.Activities{
		Pool:          e.client.pool,
		Installation:  e.installation,
		Handler:       r.handler,
		Logger:        config.Logger,
		WorkTimeout:   config.ResourceWorkTimeout,
		InformTimeout: config.ControllerInformTimeout,
		Rest: activities.Rest{
			SyncedRetention:   interval(config.SyncedResourceRetentionPeriod),
			DegradedRetention: interval(config.DegradedResourceRetentionPeriod),
			DeletedRetention:  interval(config.DeletedResourceRetentionPeriod),
		},
		Limit:              limits,
		Slots:              slots,
		AbandonAfter:       e.client.timing.abandonAfter,
		DefaultMaxAttempts: defaultMaxAttempts,
		Informed:           func(kind string) { e.client.wakeOwn(kind) },
		Stopping:           e.stopping,
	}

	resources, err := e.resourceWorker(workCtx, kind, slots)
	if err != nil {
		return err
	}
	workflows.RegisterResource(resources)
	acts.RegisterResource(resources)
	if err := e.startWorker(resources); err != nil {
		return err
	}

	if interval := e.informInterval(r); interval > 0 {
		informs := worker.New(e.temporal, e.names.inform(kind), e.workerOptions(workCtx))
		workflows.RegisterInform(informs)
		acts.RegisterInform(informs)
		if err := e.startWorker(informs); err != nil {
			return err
		}
	}
	if err := scheduleInform(ctx, e.temporal, e.names, e.installation, kind, e.informInterval(r)); err != nil {
		return err
	}

	e.dispatchers[kind] = &dispatcher{
		kind:   kind,
		pool:   e.client.pool,
		client: e.temporal,
		names:  e.names,
		ref: func(objectID string) activities.Ref {
			return activities.Ref{Installation: e.installation, Kind: kind, ObjectID: objectID}
		},
		log:   config.Logger,
		lease: e.client.timing.lease,
		poll:  e.client.timing.poll,
		wakes: make(chan struct{}, 1),
	}
	return nil
}

const (
	// The SDK's own defaults, for what is not bounded by the kind's parallelism.
	workflowSlots      = 1000
	localActivitySlots = 1000
	// pollers is how many long polls of a sort a worker keeps open. The SDK's default of two holds back short tasks.
	pollers = 4
)

// resourceWorker is the worker of a kind, with as many slots for attempts as the kind has parallelism.
func (e *engine) resourceWorker(workCtx context.Context, kind string, slots *activities.Slots) (worker.Worker, error) {
	workflowSupplier, err := worker.NewFixedSizeSlotSupplier(workflowSlots)
	if err != nil {
		return nil, err
	}
	localSupplier, err := worker.NewFixedSizeSlotSupplier(localActivitySlots)
	if err != nil {
		return nil, err
	}
	none, err := worker.NewFixedSizeSlotSupplier(1)
	if err != nil {
		return nil, err
	}
	tuner, err := worker.NewCompositeTuner(worker.CompositeTunerOptions{
		WorkflowSlotSupplier:        workflowSupplier,
		ActivitySlotSupplier:        slots,
		LocalActivitySlotSupplier:   localSupplier,
		NexusSlotSupplier:           none,
		SessionActivitySlotSupplier: none,
	})
	if err != nil {
		return nil, err
	}
	options := e.workerOptions(workCtx)
	options.Tuner = tuner
	options.MaxConcurrentWorkflowTaskPollers = pollers
	options.MaxConcurrentActivityTaskPollers = pollers
	return worker.New(e.temporal, e.names.taskQueue(kind), options), nil
}

func (e *engine) workerOptions(workCtx context.Context) worker.Options {
	return worker.Options{
		BackgroundActivityContext: workCtx,
		// Stop decides how long to wait, and then has Work cancelled.
		WorkerStopTimeout:           365 * 24 * time.Hour,
		WorkflowPanicPolicy:         worker.BlockWorkflow,
		DisableRegistrationAliasing: true,
		OnFatalError: func(err error) {
			e.client.config.Logger.Error("a Temporal worker gave up; restart the client", "error", err)
		},
	}
}

func (e *engine) startWorker(w worker.Worker) error {
	if err := w.Start(); err != nil {
		return fmt.Errorf("starting a Temporal worker: %w", err)
	}
	e.workers = append(e.workers, w)
	return nil
}

// wake wakes the dispatcher of a kind, or all of them.
func (e *engine) wake(kind string) {
	for k, d := range e.dispatchers {
		if kind == "" || kind == k {
			d.wake()
		}
	}
}

// stop ends everything that was started: first what brings new work, then the workers, then their connection.
func (e *engine) stop(ctx context.Context) error {
	if e.onEnd != nil {
		e.onEnd()
	}
	e.cancelLoops()
	e.loops.Wait()

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		var all sync.WaitGroup
		for _, w := range e.workers {
			all.Go(w.Stop)
		}
		all.Wait()
	}()
	var err error
	select {
	case <-stopped:
	case <-ctx.Done():
		err = fmt.Errorf("delta: stop: work was still running and has been cancelled: %w", context.Cause(ctx))
		e.cancelWork()
		<-stopped
	}
	e.cancelWork()
	if e.ownsTemporal {
		e.temporal.Close()
	}
	return err
}
