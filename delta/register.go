package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/worker"
	"golang.org/x/sync/semaphore"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/workflows"
)

const registerTimeout = 10 * time.Second

// Register registers Delta's workflows, and the activities that call the client's controllers, on a worker that the caller
// runs, with its interceptors, tuning and versioning. The worker must poll Config.TaskQueue. Start then starts no workers;
// it dispatches, listens and maintains the schedules.
//
// On a worker with a version (DeploymentOptions), Delta's workflows go on with the current version of the deployment,
// whatever the worker's default behavior is: they live as long as their resources, so pinned ones would keep an old build
// for ever.
//
// Parallelism and MaxWorkers apply. RateLimit does not: limit the worker. Stop the worker before the client. It returns
// [ErrNoSchema] if the schema is missing, because activities carry the installation's id.
func (c *Client) Register(r worker.Registry) (err error) {
	defer func() {
		// The SDK panics if a name is already registered.
		if v := recover(); v != nil {
			err = fmt.Errorf("delta: register: %v", v)
		}
	}()
	switch {
	case r == nil:
		return errors.New("delta: register: the registry is nil")
	case c.config.TaskQueue == "":
		return fmt.Errorf("delta: register: %w", inputError("Config.TaskQueue", "", "must name the task queue that the worker polls"))
	case c.config.SharedWorker:
		return fmt.Errorf("delta: register: %w", inputError("Config.SharedWorker", true, "must be false: with it, Start runs the worker of the task queue"))
	case len(c.config.Controllers.kindNames()) == 0:
		return errors.New("delta: register: Config.Controllers is empty: there is nothing to work")
	}
	ctx, cancel := context.WithTimeout(context.Background(), registerTimeout)
	defer cancel()
	installation, err := db.New().GetInstallation(ctx, c.pool)
	if err != nil {
		return fmt.Errorf("delta: register: reading the installation: %w", schemaError(err))
	}
	if err := errors.Join(c.encoding.checkPool(ctx), c.checkSettings(ctx)); err != nil {
		return fmt.Errorf("delta: register: %w", err)
	}
	if _, err := readOrigin(ctx, c.pool); err != nil {
		return fmt.Errorf("delta: register: %w", err)
	}
	if err := c.claimTaskQueue(ctx); err != nil {
		return fmt.Errorf("delta: register: %w", err)
	}
	if _, err := c.readNamespaces(ctx); err != nil {
		return fmt.Errorf("delta: register: %w", err)
	}
	kinds := c.kindActivities(installation.ID, c.stopping)
	c.workflowKinds().RegisterResource(r)
	workflows.RegisterInform(r, c.config.passBehavior())
	kinds.RegisterResource(r)
	kinds.RegisterInform(r)
	return nil
}

// claimTaskQueue records the task queue of the client's kinds. Kinds that share one must be registered together, because
// Temporal gives the tasks of any of them to any worker that polls it.
func (c *Client) claimTaskQueue(ctx context.Context) error {
	var others []string
	err := pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		if err := db.New().LockControllers(ctx, tx); err != nil { // two clients that register at once would not see each other
			return err
		}
		others, err = db.New().ClaimTaskQueue(ctx, tx, db.ClaimTaskQueueParams{TaskQueue: c.config.TaskQueue, Kinds: c.config.Controllers.kindNames()})
		return err
	})
	if err != nil {
		return fmt.Errorf("noting the task queue: %w", schemaError(err))
	}
	if len(others) > 0 {
		return inputError("Config.TaskQueue", c.config.TaskQueue, "must not be that of kind %q, which this client has no controller for: register all "+
			"kinds of a task queue on each of its workers, or give them different ones. If the kind has moved to another, run: "+
			"UPDATE delta_controller SET task_queue = NULL WHERE name = '%s'", others[0], others[0])
	}
	return nil
}

// workflowKinds returns the settings of the client's kinds for workflows.
func (c *Client) workflowKinds() workflows.Kinds {
	kinds := workflows.Kinds{}
	for kind, r := range c.config.Controllers.byKind {
		kinds[kind] = workflows.Kind{HeartbeatTimeout: r.settings.HeartbeatTimeout}
	}
	return kinds
}

// kindActivities returns the activities of the client's kinds. Work and Inform end when stopping does.
func (c *Client) kindActivities(installation string, stopping context.Context) activities.Kinds {
	kinds := activities.Kinds{}
	for kind, r := range c.config.Controllers.byKind {
		a := c.configuredActivities(r)
		a.Pool, a.Installation, a.Context = c.pool, installation, c.withClient
		a.Limit, a.Claims, a.Unanswered, a.Snoozes = c.limits, c.claims, c.gate.closeUntilAnswered, c.snoozes
		a.WorkSlots = semaphore.NewWeighted(int64(r.settings.Parallelism))
		a.BatchSlots = activities.NewBatchSlots(batchSlots)
		a.Rate, a.Pace = activities.NewRateLimit(c.pool, kind, r.settings.RateLimit), c.paces[kind]
		a.Keys, a.HasParents, a.SyncedFirst = r.settings.keyLimits(), r.hasParents, c.wakeChildren
		a.AbandonAfter = c.timing.abandonAfter
		a.Observed, a.Informed = c.observeAttempt, c.wakeKind
		a.PassBegins, a.PassEnded, a.Listed, a.ClaimsLost = c.startPassSpan, c.observePass, c.observeListed, c.observeLost
		a.Sources, a.SourceFailed = c.sourcesOf(r), c.observeSource
		a.Stopping = stopping
		a.HasAttributes = c.attributes.Load
		kinds[kind] = a
	}
	return kinds
}
