package delta

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/internal/backoff"
)

// engine runs between Start and Stop: for each kind a worker for its resources, one for its informer (or one worker for all
// kinds) and a dispatcher, and the listener.
type engine struct {
	client       *Client
	temporal     client.Client
	ownsTemporal bool
	installation string
	// started reports whether any client has started on this database before.
	started bool
	// hashIDs reports whether workflows are named by hashes of ids; nil if no client that decides it has started.
	hashIDs atomic.Pointer[bool]
	names   temporalNames
	kinds   activities.Kinds
	// attributes reports whether the Temporal namespace has Delta's search attributes. A started engine shares the
	// client's.
	attributes *atomic.Bool
	// workers are the client's own; none if the user runs the worker.
	workers     []*ownWorker
	dispatchers map[string]*dispatcher
	listener    *listener

	// cancelLoops ends dispatchers and listener. cancelWork ends stopping, and with it the contexts of Work and Inform.
	cancelLoops, cancelWork context.CancelFunc
	stopping                context.Context //nolint:containedctx // it is the engine's life, not a call's
	loops                   sync.WaitGroup
	onEnd                   func() bool
}

// startEngine starts everything, or nothing.
func startEngine(ctx context.Context, c *Client) (_ *engine, err error) {
	e := &engine{client: c, names: c.temporalNames(), attributes: &c.attributes, dispatchers: map[string]*dispatcher{}}
	loopCtx, cancelLoops := context.WithCancel(ctx)
	// Activities inherit workCtx. It is never cancelled, because they answer Temporal with it: the end of ctx reaches Work
	// through Stop, after the workers have stopped taking tasks.
	workCtx := context.WithoutCancel(ctx)
	e.cancelLoops = cancelLoops
	// A context of the engine, because the client's also belongs to registered workers, and to a Start that is tried again.
	e.stopping, e.cancelWork = context.WithCancel(c.stopping)
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
	if err := c.checkSettings(ctx); err != nil {
		return nil, err
	}
	if err := e.connectTemporal(ctx, retryUnavailable); err != nil {
		return nil, err
	}
	// Temporal comes first: then a database whose prefix is refused there stays free to take another, and a missing
	// Temporal namespace is an error instead of a warning that it has no search attributes.
	if err := e.ensurePrefix(ctx); err != nil {
		return nil, err
	}
	e.attributes.Store(e.ensureAttributes(ctx))
	if err := e.claimDatabase(ctx); err != nil {
		return nil, err
	}
	if c.config.SharedWorker {
		if err := c.claimTaskQueue(ctx); err != nil {
			return nil, err
		}
	}
	if err := e.writeSettings(ctx); err != nil {
		return nil, err
	}
	if err := e.prepareChangeLog(ctx); err != nil {
		return nil, err
	}
	namespaces, err := c.readNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	c.warnOverridden(namespaces)
	if err := e.startWorkers(ctx, workCtx); err != nil {
		return nil, err
	}

	c.setDispatchers(e.dispatchers) // before the listener, which wakes them through the client
	e.listener = &listener{
		pool: c.pool, channel: "delta_" + e.installation, log: c.config.Logger,
		wake: func(kind string) { e.handleNotification(loopCtx, kind) }, wakeAll: func() { e.handleNotification(loopCtx, namespacesChanged); c.wakeDispatchers() },
	}
	e.loops.Go(func() { e.listener.run(loopCtx) })
	for _, w := range e.workers {
		e.loops.Go(func() { w.replaceFailed(loopCtx) })
	}
	for _, d := range e.dispatchers {
		e.loops.Go(func() { d.run(loopCtx) })
		if d.touches {
			e.loops.Go(func() { d.touchChildren(loopCtx) })
		}
	}
	e.loops.Go(func() { e.runMaintenance(loopCtx) })
	if !c.config.WorkerVersion.isUnversioned() {
		e.loops.Go(func() { e.watchRouting(loopCtx) })
	}
	if c.telemetry != nil {
		e.loops.Go(func() { e.runMeasuring(loopCtx) })
	}
	return e, nil
}

// connectTemporal takes the user's Temporal client, or makes one, and checks with try that it reaches the server.
func (e *engine) connectTemporal(ctx context.Context, try func(context.Context, func() error) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, e.client.timing.temporalTimeout)
	defer cancel()
	if e.client.config.Temporal != nil {
		e.temporal = e.client.config.Temporal
		err := try(ctx, func() error {
			_, err := e.temporal.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
			return err
		})
		if err != nil {
			return fmt.Errorf("reaching Temporal through Config.Temporal: %w", err)
		}
		return nil
	}
	options, err := e.client.connectionOptions()
	if err != nil {
		return err
	}
	err = try(ctx, func() (err error) {
		e.temporal, err = dialTemporal(ctx, options)
		return err
	})
	e.ownsTemporal = err == nil
	return err
}

// startWorkers starts each kind's workers, then its schedule.
func (e *engine) startWorkers(ctx, workCtx context.Context) (err error) {
	defer func() {
		// The SDK panics if Config.Temporal wraps its client.
		if v := recover(); v != nil {
			err = fmt.Errorf("making a Temporal worker with Config.Temporal (%T): %v", e.temporal, v)
		}
	}()
	e.kinds = e.client.kindActivities(e.installation, e.stopping)
	if e.client.config.SharedWorker {
		if err := e.startSharedWorker(ctx, workCtx); err != nil {
			return err
		}
	}
	for _, kind := range e.client.config.Controllers.kindNames() {
		if err := e.startKind(ctx, workCtx, kind, e.client.config.Controllers.byKind[kind]); err != nil {
			return fmt.Errorf("kind %q: %w", kind, err)
		}
	}
	return nil
}

func (e *engine) startKind(ctx, workCtx context.Context, kind string, r registered) error {
	if e.client.config.TaskQueue == "" {
		if err := e.startOwnWorkers(ctx, workCtx, kind, r); err != nil {
			return err
		}
	}
	if err := e.writeSchedules(ctx, kind); err != nil {
		return err
	}
	if err := e.startSources(ctx, kind); err != nil {
		return err
	}
	e.dispatchers[kind] = &dispatcher{
		kind:   kind,
		pool:   e.client.pool,
		client: e.temporal,

		temporalNamespace: e.temporalNamespace(),

		names:     e.names,
		hashIDs:   e.client.config.HashObjectIDs,
		finalizes: r.handler.Finalizes(),
		eager:     e.startsEagerly(),
		ref: func() activities.Ref {
			return activities.Ref{
				Installation: e.installation, Kind: kind, SearchAttributes: e.attributes.Load(), Local: e.client.paces[kind].IsLocal(),
			}
		},
		dropAttributes: func() { e.attributes.Store(false) },

		telemetry: e.client.telemetry,

		log:   e.client.config.Logger,
		lease: e.client.timing.lease,

		batchSize: r.settings.BatchSize,
		keyed:     r.settings.keyLimits().Limited,
		parents:   parentsWatch{has: r.hasParents},
		touches:   len(r.settings.TouchedBy) > 0,
		pace:      e.client.paces[kind],
		batchWait: max(r.settings.BatchWait, 0),
		limits:    e.client.limits,
		failures:  map[int64]int{},

		poll:       e.client.timing.poll,
		crowd:      crowd{slow: e.client.timing.slowLease},
		leftBehind: backoff.New(10*time.Millisecond, e.client.timing.poll),
		timeout:    e.client.timing.dispatch,
		wakes:      make(chan struct{}, 1),
	}
	return nil
}

// startsEagerly reports whether the first task of a workflow may go to this client's own worker at once. Such a task passes
// by the routing of versions: a build that is not current would get it. A worker of the user's may have a version, too.
func (e *engine) startsEagerly() bool {
	config := e.client.config
	return config.WorkerVersion.isUnversioned() && (config.TaskQueue == "" || config.SharedWorker)
}

// stopPatience is how long stop waits for running work after cancelling it.
const stopPatience = 4500 * time.Millisecond

// stop ends everything that was started: first the loops that bring new work, then the workers, then the claims, then the
// connection. It returns at most some seconds after ctx has ended, even if a server is down. Anything that has not ended by
// then goes on alone, and its claims expire.
func (e *engine) stop(ctx context.Context) error {
	if e.onEnd != nil {
		e.onEnd()
	}
	e.cancelLoops()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		// The loops end first, so that a worker that still runs answers a start in progress.
		e.loops.Wait()
		var all sync.WaitGroup
		for _, w := range e.workers {
			all.Go(w.stop)
		}
		all.Wait()
		e.client.claims.Wait()
	}()
	var err error
	select {
	case <-stopped:
	case <-ctx.Done():
		err = fmt.Errorf("delta: stop: work was still running and has been cancelled: %w", context.Cause(ctx))
		e.cancelWork()
		select {
		case <-stopped:
		case <-time.After(stopPatience):
			e.client.config.Logger.Error("not everything has ended in time; the client does not wait for the rest")
		}
	}
	e.cancelWork()
	if e.ownsTemporal {
		e.temporal.Close()
	}
	return err
}
