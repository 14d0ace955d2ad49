package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/workflows"
)

const (
	syncedKind = "bench_sync"
	bareQueue  = "bench_bare"

	// parallelism is the number of activities that run at once, on both sides.
	parallelism = 64
	// starters is the number of workflows that are started at once, the same as in Delta's dispatcher.
	starters = 32
	// restTime is how long the workflows of both sides sleep after their activity: Delta's default retention.
	restTime = 24 * time.Hour
	// deadline is the time limit of one round, to distinguish a stack that hangs from a slow one.
	deadline = 2 * time.Minute
)

// lifecycle has both sides, each with a running worker.
type lifecycle struct {
	b      *bench
	client *delta.Client
	worker worker.Worker
	// synced and ran get a value for each activity: Delta's Work, and the bare one.
	synced, ran chan struct{}
}

func startLifecycle(ctx context.Context, b *bench) (_ *lifecycle, err error) {
	l := &lifecycle{b: b, synced: make(chan struct{}, 1<<16), ran: make(chan struct{}, 1<<16)}
	controllers := delta.NewControllers()
	delta.AddController(controllers, &countingWorker{done: l.synced})
	l.client, err = delta.NewClient(b.pool, &delta.Config{Controllers: controllers, Temporal: b.temporal, Logger: b.logger})
	if err != nil {
		return nil, err
	}
	if err := l.client.Start(ctx); err != nil {
		return nil, err
	}

	// These are the options of Delta's workers; see delta/engine.go.
	l.worker = worker.New(b.temporal, bareQueue, worker.Options{
		MaxConcurrentActivityExecutionSize:      parallelism,
		MaxConcurrentWorkflowTaskExecutionSize:  1000,
		MaxConcurrentLocalActivityExecutionSize: 1000,
		MaxConcurrentWorkflowTaskPollers:        4,
		MaxConcurrentActivityTaskPollers:        4,
		DisableRegistrationAliasing:             true,
	})
	l.worker.RegisterWorkflowWithOptions(bareWorkflow, workflow.RegisterOptions{Name: bareName})
	l.worker.RegisterActivityWithOptions(func(context.Context, string) error {
		l.ran <- struct{}{}
		return nil
	}, activity.RegisterOptions{Name: bareName})
	if err := l.worker.Start(); err != nil {
		return nil, errors.Join(err, l.client.Stop(ctx))
	}
	return l, nil
}

func (l *lifecycle) stop() error {
	l.worker.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return l.client.Stop(ctx)
}

// countingWorker is a controller that only counts calls of Work.
type countingWorker struct {
	delta.WorkerDefaults[syncedItem]
	delta.InformerDefaults[syncedItem]
	done chan<- struct{}
}

func (n *countingWorker) Work(context.Context, *delta.Resource[syncedItem]) error {
	n.done <- struct{}{}
	return nil
}

func (n *countingWorker) Inform(context.Context, *delta.InformOptions) (<-chan syncedItem, error) {
	return nil, errors.New("the benchmark has no informer")
}

// syncedItem is an item of the kind that is synced.
type syncedItem struct{ item }

func (syncedItem) Kind() string { return syncedKind }

func (syncedItem) Settings() delta.ObjectSettings {
	return delta.ObjectSettings{Parallelism: parallelism, InformInterval: -1, BatchSize: 1}
}

const bareName = "bench.Bare"

// bareWorkflow is the smallest workflow of the same shape as Delta's: an activity, then a timer.
func bareWorkflow(ctx workflow.Context, id string) error {
	options := workflow.ActivityOptions{StartToCloseTimeout: time.Minute}
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), bareName, id).Get(ctx, nil); err != nil {
		return err
	}
	return workflow.NewTimer(ctx, restTime).Get(ctx, nil)
}

// startBare starts a workflow with the SDK's defaults, or eagerly.
func (l *lifecycle) startBare(ctx context.Context, id string, eagerly bool) error {
	options := client.StartWorkflowOptions{ID: bareID(id), TaskQueue: bareQueue, EnableEagerStart: eagerly}
	_, err := l.b.temporal.ExecuteWorkflow(ctx, options, bareName, id)
	return err
}

func bareID(id string) string { return "bare/" + id }

// deltaID returns the id of a resource's workflow with the default prefix.
func deltaID(id string) string { return "delta/" + syncedKind + "/" + id }

// awaitCount waits for a number of values on a channel.
func awaitCount(ctx context.Context, done <-chan struct{}, count int) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for n := range count {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d activities ran: %w", n, count, context.Cause(ctx))
		}
	}
	return nil
}

// terminateWorkflows ends workflows, so that leftovers of one side do not slow down the other.
func (l *lifecycle) terminateWorkflows(ctx context.Context, ids []string) error {
	var group errgroup.Group
	group.SetLimit(starters)
	for _, id := range ids {
		group.Go(func() error {
			err := l.b.temporal.TerminateWorkflow(ctx, id, "", "the round is over")
			if notFound := (*serviceerror.NotFound)(nil); errors.As(err, &notFound) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return l.awaitQuiet(ctx)
}

// awaitQuiet returns when Temporal has finished its work after the ends of workflows: it updates the list of workflows last.
func (l *lifecycle) awaitQuiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		running, err := l.b.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Query: fmt.Sprintf("ExecutionStatus = 'Running' AND WorkflowType IN ('%s', '%s')", bareName, workflows.ResourceName),
		})
		if err != nil || running.GetCount() == 0 {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
