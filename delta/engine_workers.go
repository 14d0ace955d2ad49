package delta

import (
	"context"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/workflows"
)

const (
	// The SDK's defaults, for slots that the kind's Parallelism does not bound.
	workflowSlots      = 1000
	localActivitySlots = 1000
	// pollers is how many long polls of each type a worker keeps open. The SDK's default of two delays short tasks.
	pollers = 4
	// sharedPollers is the same for a worker of all kinds.
	sharedPollers = 16
	// maxHeartbeatThrottle bounds how long the SDK delays a heartbeat; its default is four fifths of the timeout.
	maxHeartbeatThrottle = 2 * time.Second
	// deadlockPatience is the limit for workflow code that does not yield. It is longer than the timeout of a workflow
	// task, 10 s, after which Temporal gives the task to another worker anyway.
	deadlockPatience = 30 * time.Second
	// batchSlots is how many batches of a kind hand members to Work at once.
	batchSlots = 4
	// waitingSlots is how many attempts of a kind may wait, in addition to those that its Parallelism lets run.
	waitingSlots = 64
)

// resourceWorker makes a worker of resources. Calls of Work are limited separately: activities have more slots, for
// attempts that wait, for example for a slot of their namespace.
func (e *engine) resourceWorker(workCtx context.Context, queue string, slots, polls int, gaveUp func(error)) (worker.Worker, error) {
	activitySupplier, err := worker.NewFixedSizeSlotSupplier(slots)
	if err != nil {
		return nil, err
	}
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
		WorkflowSlotSupplier:        gatedSlots{workflowSupplier, &e.client.gate},
		ActivitySlotSupplier:        gatedSlots{activitySupplier, &e.client.gate},
		LocalActivitySlotSupplier:   localSupplier,
		NexusSlotSupplier:           none,
		SessionActivitySlotSupplier: none,
	})
	if err != nil {
		return nil, err
	}
	options := e.workerOptions(workCtx, gaveUp)
	options.Tuner = tuner
	options.MaxConcurrentWorkflowTaskPollers = polls
	options.MaxConcurrentActivityTaskPollers = polls
	return worker.New(e.temporal, queue, options), nil
}

func (e *engine) workerOptions(workCtx context.Context, gaveUp func(error)) worker.Options {
	return worker.Options{
		BackgroundActivityContext: workCtx,
		DeploymentOptions:         e.client.config.WorkerVersion.deploymentOptions(),
		// Stop decides how long to wait, and then cancels Work.
		WorkerStopTimeout:           365 * 24 * time.Hour,
		WorkflowPanicPolicy:         worker.BlockWorkflow,
		DisableRegistrationAliasing: true,
		// The SDK fails a workflow task when workflow code does not yield for this long. Its default of a second mistakes a
		// busy machine, or a throttled container, for a deadlock. workflowcheck and replays look for real ones.
		DeadlockDetectionTimeout: deadlockPatience,
		// Several heartbeats fit into the timeout, so that a machine that is busy for a moment is not taken for a dead
		// worker.
		MaxHeartbeatThrottleInterval: maxHeartbeatThrottle,
		OnFatalError:                 gaveUp,
	}
}

func (e *engine) startWorker(ctx context.Context, queue, kind string, build func(gaveUp func(error)) (worker.Worker, error)) error {
	w := newOwnWorker(queue, kind, e.client.config.Logger, build)
	if err := retryUnanswered(ctx, w.start); err != nil {
		return err
	}
	e.workers = append(e.workers, w)
	return nil
}

// startOwnWorkers starts a kind's worker, and the worker of its informer.
func (e *engine) startOwnWorkers(ctx, workCtx context.Context, kind string, r registered) error {
	acts := e.kinds[kind]
	acts.OwnQueue = true
	own := activities.Kinds{kind: acts}
	err := e.startWorker(ctx, e.names.taskQueue(kind), kind, func(gaveUp func(error)) (worker.Worker, error) {
		resources, err := e.resourceWorker(workCtx, e.names.taskQueue(kind), r.settings.Parallelism+waitingSlots, pollers, gaveUp)
		if err != nil {
			return nil, err
		}
		e.client.workflowKinds().RegisterResource(resources)
		own.RegisterResource(resources)
		return resources, nil
	})
	if err != nil || e.client.config.DisableInformers {
		return err
	}
	return e.startWorker(ctx, e.names.informTaskQueue(kind), kind, func(gaveUp func(error)) (worker.Worker, error) {
		informs := worker.New(e.temporal, e.names.informTaskQueue(kind), e.workerOptions(workCtx, gaveUp))
		workflows.RegisterInform(informs, e.client.config.passBehavior())
		own.RegisterInform(informs)
		return informs, nil
	})
}

// startSharedWorker starts one worker for all kinds and their informers.
func (e *engine) startSharedWorker(ctx, workCtx context.Context) error {
	slots := 0
	for _, r := range e.client.config.Controllers.byKind {
		slots += r.settings.Parallelism + waitingSlots
	}
	queue := e.client.config.TaskQueue
	return e.startWorker(ctx, queue, "", func(gaveUp func(error)) (worker.Worker, error) {
		shared, err := e.resourceWorker(workCtx, queue, slots, sharedPollers, gaveUp)
		if err != nil {
			return nil, err
		}
		e.client.workflowKinds().RegisterResource(shared)
		workflows.RegisterInform(shared, e.client.config.passBehavior())
		e.kinds.RegisterResource(shared)
		e.kinds.RegisterInform(shared)
		return shared, nil
	})
}
