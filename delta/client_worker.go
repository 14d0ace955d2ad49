package delta

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// shortestWorkerPause and longestWorkerPause bound the pause before a worker that gave up is replaced.
	shortestWorkerPause = time.Second
	longestWorkerPause  = time.Minute
)

// ownWorker keeps one of the client's task queues polled while the client runs.
//
// The SDK's worker gives up for good when its polls fail for two minutes with an error that the SDK considers final, such
// as a missing Temporal namespace. Then another worker takes its place. It has the same activities, so Parallelism bounds
// both together. The old worker polls no more, but its calls of Work go on. Nothing waits for them: claims keep them from
// running twice.
type ownWorker struct {
	// queue is the task queue. kind is empty if the worker serves all kinds.
	queue, kind string
	// build makes a worker, not started, that calls gaveUp when it gives up.
	build func(gaveUp func(error)) (worker.Worker, error)
	log   *slog.Logger
	// lost receives the reason when the current worker gives up.
	lost chan error
	// retired counts workers that gave up and whose last tasks have not ended.
	retired sync.WaitGroup

	mu      sync.Mutex
	current worker.Worker
	// failure is why nothing polls the queue; nil while the current worker does.
	failure error
	failed  time.Time
}

func newOwnWorker(queue, kind string, log *slog.Logger, build func(gaveUp func(error)) (worker.Worker, error)) *ownWorker {
	return &ownWorker{queue: queue, kind: kind, build: build, log: log, lost: make(chan error, 1)}
}

// start makes a worker and starts it.
func (w *ownWorker) start() error {
	made, err := w.build(w.reportLost)
	if err != nil {
		return fmt.Errorf("making a Temporal worker: %w", err)
	}
	if err := made.Start(); err != nil {
		w.retired.Go(made.Stop) // it may have started in part
		return fmt.Errorf("starting a Temporal worker: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current, w.failure = made, nil
	return nil
}

// reportLost is called when a worker gives up. It must not block, because the worker stops after it returns.
func (w *ownWorker) reportLost(err error) {
	w.setFailure(err)
	select {
	case w.lost <- err:
	default: // that one gave up is known already
	}
}

func (w *ownWorker) setFailure(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		w.failed = time.Now()
	}
	w.failure = err
}

// replaceFailed replaces workers that give up, until the context ends.
func (w *ownWorker) replaceFailed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-w.lost:
			w.log.Error("a Temporal worker gave up; another one takes its place", "task_queue", w.queue, "error", err)
		}
		w.retireCurrent()
		if w.startReplacement(ctx) != nil {
			return
		}
		w.log.Warn("a Temporal worker polls again in place of one that gave up", "task_queue", w.queue)
	}
}

// startReplacement tries until another worker has started. It returns an error only when the context ends.
func (w *ownWorker) startReplacement(ctx context.Context) error {
	for pauses := backoff.New(shortestWorkerPause, longestWorkerPause); ; {
		wait := pauses.Delay()
		if err := backoff.Pause(ctx, wait); err != nil {
			return err
		}
		err := w.start()
		if err == nil {
			return nil
		}
		w.setFailure(err)
		w.log.Warn("no Temporal worker could take the place of one that gave up; it is tried again", "task_queue", w.queue, "error", err)
	}
}

// retireCurrent stops the current worker in the background: its last tasks end beside its replacement.
func (w *ownWorker) retireCurrent() {
	w.mu.Lock()
	old := w.current
	w.current = nil
	w.mu.Unlock()
	if old != nil {
		w.retired.Go(old.Stop)
	}
}

// stop stops the current worker, and waits for the last tasks of all workers. Call it after replaceFailed has returned.
func (w *ownWorker) stop() {
	w.retireCurrent()
	w.retired.Wait()
}

// checkPolled returns why nothing polls the task queue; nil if a worker does.
func (w *ownWorker) checkPolled() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		return nil
	}
	return fmt.Errorf("nothing polls the task queue %s since %s: %w", w.queue, w.failed.UTC().Format(time.RFC3339), w.failure)
}
