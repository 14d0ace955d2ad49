package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
)

// HealthPart names a part of a client.
type HealthPart string

// The parts that [Client.Health] checks.
const (
	HealthClient     HealthPart = "client"
	HealthPostgres   HealthPart = "postgres"
	HealthTemporal   HealthPart = "temporal"
	HealthWorker     HealthPart = "worker"
	HealthDispatcher HealthPart = "dispatcher"
	HealthListener   HealthPart = "listener"
)

// HealthError describes what is wrong with one part of a client. [Client.Health] returns them joined.
type HealthError struct {
	// Part is the part that is not healthy. Kind is the kind that it serves, and empty if it serves all kinds.
	Part HealthPart
	Kind string
	// Err is the reason, Remedy what to do about it.
	Err    error
	Remedy string
}

// Error names the part, the reason and the remedy.
func (e *HealthError) Error() string {
	of := ""
	if e.Kind != "" {
		of = fmt.Sprintf(" of kind %q", e.Kind)
	}
	return fmt.Sprintf("delta: %s%s: %v. %s", e.Part, of, e.Err, e.Remedy)
}

// Unwrap returns the reason.
func (e *HealthError) Unwrap() error { return e.Err }

// healthTimeout bounds each request to Postgres and Temporal.
const healthTimeout = 3 * time.Second

// stage is a step in the life of a client.
type stage int

const (
	stageNew stage = iota
	stageStarting
	stageStarted
	stageStopping
	stageStopped
)

// condition holds the stage of a client behind a separate lock, for calls that must not wait for Start or Stop.
type condition struct {
	mu      sync.Mutex
	stage   stage
	running *engine
	// failure is the error of the latest Start, while the client is new.
	failure error
	// err is why the client has stopped. unasked is set if nobody called Stop.
	err     error
	unasked bool
	done    chan struct{}
}

func (c *condition) currentStage() (stage, *engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stage, c.running
}

// enterStage sets the next stage.
func (c *condition) enterStage(next stage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stage = next
}

// noteStarted sets the stage after Start has returned.
func (c *condition) noteStarted(running *engine, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.failure, c.stage = running, err, stageStarted
	if err != nil {
		c.stage = stageNew
	}
}

// noteStopped records why the client has stopped. Only the first call counts.
func (c *condition) noteStopped(err error, unasked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		return
	default:
	}
	c.stage, c.err, c.unasked = stageStopped, err, unasked
	close(c.done)
}

// Done returns a channel that is closed when the client has stopped: after [Client.Stop], or after the context of
// [Client.Start] has ended. A Start that fails does not close it, because Start can be tried again.
func (c *Client) Done() <-chan struct{} { return c.condition.done }

// Err returns nil until Done is closed. Then it is why the client has stopped: nil if [Client.Stop] was called and
// everything ended in time, the error of that Stop otherwise, or an error that wraps the cause if the context of
// [Client.Start] ended.
func (c *Client) Err() error {
	c.condition.mu.Lock()
	defer c.condition.mu.Unlock()
	return c.condition.err
}

// Health returns nil if the client is healthy, and otherwise a [*HealthError] for each part that is not, joined with
// [errors.Join]:
//
//   - the client, if it is not started, is starting, is stopping or has stopped; a client without controllers, only if it
//     is stopping or has stopped
//   - Postgres, which gets a ping through the pool
//   - Temporal, which is asked for the task queue of one kind
//   - a worker, if it gave up and no other has taken its place yet. For workers of the caller's ([Client.Register]): if no
//     process has polled [Config].TaskQueue for 75 seconds. This counts the workers of all processes; to learn that your
//     own worker gave up, set OnFatalError in its options
//   - a dispatcher, if its latest round failed
//   - the listener, if it has no connection: then objects that other clients inform are found by polling, a little later
//
// It sends one request each to Postgres and Temporal, and waits 3 seconds at most, so it may be called every few seconds.
// The client recovers by itself when Postgres or Temporal is back; it needs no restart. See [Probes] for an HTTP handler.
func (c *Client) Health(ctx context.Context) error {
	found := c.findProblems(ctx)
	all := make([]error, len(found))
	for i, f := range found {
		all[i] = f
	}
	return errors.Join(all...)
}

// findProblems returns the parts that are not healthy, in the order of HealthPart's constants.
func (c *Client) findProblems(ctx context.Context) []*HealthError {
	stage, e := c.condition.currentStage()
	if wrong := c.checkStage(stage); wrong != nil {
		return []*HealthError{wrong}
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if e == nil { // it only informs
		return healthErrors(c.checkPostgres(ctx))
	}
	var postgres *HealthError
	var temporal []*HealthError
	var asked sync.WaitGroup
	asked.Go(func() { postgres = c.checkPostgres(ctx) })
	asked.Go(func() { temporal = e.checkTemporal(ctx) })
	asked.Wait()
	return append(append(healthErrors(postgres), temporal...), e.checkParts()...)
}

func healthErrors(found *HealthError) []*HealthError {
	if found == nil {
		return nil
	}
	return []*HealthError{found}
}

// checkStage returns the problem that the client's stage is, whatever its parts report.
func (c *Client) checkStage(now stage) *HealthError {
	c.condition.mu.Lock()
	failure, err := c.condition.failure, c.condition.err
	c.condition.mu.Unlock()
	wrong := func(err error, remedy string) *HealthError {
		return &HealthError{Part: HealthClient, Err: err, Remedy: remedy}
	}
	switch now {
	case stageNew:
		switch {
		case len(c.config.Controllers.kindNames()) == 0:
			return nil // it only informs, and is never started
		case failure != nil:
			return wrong(failure, "Call Start again")
		}
		return wrong(errors.New("it has not been started"), "Call Start")
	case stageStarting:
		return wrong(errors.New("it is starting"), "Wait until Start has returned")
	case stageStopping:
		return wrong(errors.New("it is stopping"), "Make a new client, if it should go on")
	case stageStopped:
		if err != nil {
			return wrong(fmt.Errorf("it has stopped: %w", err), "Make a new client, or restart the program")
		}
		return wrong(errors.New("it has stopped"), "Make a new client, or restart the program")
	case stageStarted:
	}
	return nil
}

func (c *Client) checkPostgres(ctx context.Context) *HealthError {
	err := c.pool.Ping(ctx)
	if err == nil {
		return nil
	}
	return &HealthError{Part: HealthPostgres, Err: err, Remedy: "Look after Postgres, the way there, and whether all connections of the pool are in use. " +
		"The client goes on by itself when it gets a connection"}
}

// checkTemporal asks Temporal for one of the client's task queues, and whether a worker polls it.
func (e *engine) checkTemporal(ctx context.Context) []*HealthError {
	kind := e.client.config.Controllers.kindNames()[0]
	queue := e.names.taskQueue(kind)
	if len(e.workers) > 0 {
		_, err := e.temporal.DescribeTaskQueue(ctx, queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
		return healthErrors(temporalError(err))
	}
	polled, err := e.readPollers(ctx, queue)
	if err != nil {
		return healthErrors(temporalError(err))
	}
	if len(polled.identities) > 0 {
		return nil
	}
	return healthErrors(&HealthError{
		Part: HealthWorker, Err: fmt.Errorf("nobody has polled Config.TaskQueue %q for %s", queue, pollerGrace),
		Remedy: "Start the worker that the client is registered on. If it gave up, make another one, register the client on it, and start it: " +
			"OnFatalError in its options says when",
	})
}

func temporalError(err error) *HealthError {
	if err == nil {
		return nil
	}
	return &HealthError{
		Part: HealthTemporal, Err: err,
		Remedy: "Look after Temporal, the way there, its namespace and the rights of the client. The client goes on by itself when Temporal answers",
	}
}

// checkParts sends no requests: each part knows its own state.
func (e *engine) checkParts() (all []*HealthError) {
	for _, w := range e.workers {
		if err := w.checkPolled(); err != nil {
			all = append(all, &HealthError{
				Part: HealthWorker, Kind: w.kind, Err: err,
				Remedy: "Look after Temporal, its namespace and the rights of the client. Another worker takes its place by itself",
			})
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(e.dispatchers)) {
		health := &e.dispatchers[kind].health
		if err := cmp.Or(health.checkStuck(e.client.timing.stuck), health.checkFailed()); err != nil {
			all = append(all, &HealthError{
				Part: HealthDispatcher, Kind: kind, Err: err,
				Remedy: "Nothing is lost, and it is tried again. Restart the program only if it stays stuck",
			})
		}
	}
	if err := e.listener.checkConnection(); err != nil {
		all = append(all, &HealthError{
			Part: HealthListener, Err: err,
			Remedy: "What is due is found by polling. Give the pool a direct connection to Postgres, or one more connection there",
		})
	}
	return all
}

// checkAlive returns an error for problems that only a restart of the program mends: the client stopped although nobody
// called Stop, or a dispatcher is stuck.
func (c *Client) checkAlive() error {
	stage, e := c.condition.currentStage()
	switch stage {
	case stageStopped:
		c.condition.mu.Lock()
		defer c.condition.mu.Unlock()
		if c.condition.unasked {
			return c.condition.err
		}
	case stageStarted:
		for _, kind := range slices.Sorted(maps.Keys(e.dispatchers)) {
			if err := e.dispatchers[kind].health.checkStuck(c.timing.stuck); err != nil {
				return &HealthError{Part: HealthDispatcher, Kind: kind, Err: err, Remedy: "Restart the program"}
			}
		}
	case stageNew, stageStarting, stageStopping:
	}
	return nil
}
