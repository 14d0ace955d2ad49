package delta

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

// Failure is an attempt, or a pass of an informer, that has failed.
type Failure struct {
	// Operation is the failed method. Members of a batch fail separately, as OperationWork.
	Operation Operation
	// Kind is that of the object.
	Kind string
	// Resource is the row after the failure was written. If the failure was not written (IsSuperseded), it is the row as it
	// was claimed. Nil for a listing.
	Resource *deltatype.ResourceRow
	// Generation is that of the attempt, and Attempt its number within the generation; 0 for a listing.
	Generation int64
	Attempt    int
	// Err is the error of the controller, a *[PanicError], or Delta's error for an attempt that was cut off or lost. It is
	// not nil.
	Err error
	// IsPanic reports whether the controller panicked; Stack is the stack of the panic.
	IsPanic bool
	Stack   string
	// IsDegraded reports whether the failure degraded the resource.
	IsDegraded bool
	// IsSuperseded reports whether the resource had gone on without the attempt: to a newer generation, which leaves its
	// error on the row; or by a deletion, another claim, or a committed transaction with CompleteTx, which leave nothing.
	// Such a failure changes nothing, but it may be a panic.
	IsSuperseded bool
	// RunID names the run of the informer, and Shard its shard, for a listing.
	RunID, Shard string
	// Duration is how long the call took: a WorkBatch for all of its resources together, or the pass.
	Duration time.Duration
	// Time is when the client had written it.
	Time time.Time

	// text is the text of Err, read when the call ended: methods of Err may be user code, which is not called again.
	text string
	// pass is the failed pass, for the log; nil for an attempt.
	pass *activities.PassObservation
}

func failureOf(o *activities.Observation, row *deltatype.ResourceRow) Failure {
	f := Failure{
		Operation: OperationWork, Kind: row.ObjectKind, Resource: row, Generation: o.Generation, Attempt: o.Attempt, Err: o.Err, IsPanic: o.Trace != "",
		Stack: o.Trace, IsDegraded: o.IsDegraded, IsSuperseded: o.IsUnwritten || row.Generation != o.Generation, Duration: o.Took, Time: time.Now().UTC(),
		text: o.Error,
	}
	if o.IsFinalizing {
		f.Operation = OperationFinalize
	}
	if f.Err == nil {
		f.Err = errors.New(o.Error)
	}
	return f
}

// failureOfPass returns the Failure of a failed pass.
func failureOfPass(p *activities.PassObservation) Failure {
	f := Failure{
		Operation: OperationList, Kind: p.Kind, Err: guardError(p.Err), RunID: p.RunID, Shard: p.Shard, Duration: p.Took, Time: time.Now().UTC(),
		pass: p,
	}
	f.text = shorten.Error(f.Err, maxErrorText)
	if panicked := new(PanicError); errors.As(f.Err, &panicked) {
		f.IsPanic, f.Stack = true, panicked.Stack
	}
	return f
}

// attemptedRow returns the row with the failed generation and attempt, for the log: the row may have gone on.
func (f *Failure) attemptedRow() *deltatype.ResourceRow {
	row := *f.Resource
	row.Generation, row.Attempt = f.Generation, f.Attempt
	return &row
}

// guardError returns err, or a *PanicError in its place if its methods panic. They may be user code, such as an Unwrap of a
// nil pointer, and would end the process, because a pass is observed on Delta's goroutines.
func guardError(err error) (guarded error) {
	if err == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			guarded = &PanicError{Value: fmt.Sprintf("in the methods of the error that was returned, a %T: %v", err, v), Stack: string(debug.Stack())}
		}
	}()
	_ = err.Error()
	_, _ = errors.Is(err, errNoMatch), errors.As(err, new(*noMatchError)) // neither matches, so both visit everything that err wraps
	return err
}

type noMatchError struct{ error }

var errNoMatch = errors.New("no match")

const (
	// maxHandedFailures bounds the failures that wait for the ErrorHandler, and maxHandedBytes their total size: a thousand
	// rows of a megabyte each, with objects and errors, would be a gigabyte. A larger failure is taken if none waits.
	maxHandedFailures = 1000
	maxHandedBytes    = 32 << 20
	// handlerPatience is how long Stop waits for the ErrorHandler.
	handlerPatience = time.Second
)

// failures passes failures to the log and to the client's ErrorHandler. The handler, the Logger and Telemetry are user
// code: no attempt waits for the handler, and all three are called without a lock.
type failures struct {
	client *Client
	log    failureLog
	// mostBytes is maxHandedBytes, or less in tests.
	mostBytes int

	mu     sync.Mutex
	closed bool
	// dropped counts failures that were dropped since logged, when the log had its latest count.
	dropped int
	logged  time.Time
	// queue and done are made for the first failure; bytes is the total size of the queue.
	queue chan Failure
	bytes int
	done  chan struct{}
}

// add logs a failure, and queues it for the ErrorHandler.
func (f *failures) add(failure Failure) {
	f.log.add(failure)
	if f.client.config.ErrorHandler == nil {
		return
	}
	if failure.Resource != nil {
		failure.Resource = failure.Resource.Clone()
	}
	if !f.enqueue(failure) {
		f.client.telemetry.recordDropped("failures", 1)
		f.logDropped(logDroppedEvery)
	}
}

// enqueue queues a failure for the ErrorHandler, and reports whether there was room. After the client has stopped, failures
// are only logged.
func (f *failures) enqueue(failure Failure) bool {
	size := failure.byteSize()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return true
	}
	if f.queue == nil {
		f.queue, f.done = make(chan Failure, maxHandedFailures), make(chan struct{})
		go f.callHandlers()
	}
	if f.bytes > 0 && f.bytes+size > f.mostBytes {
		f.dropped++
		return false
	}
	select {
	case f.queue <- failure:
		f.bytes += size
		return true
	default:
		f.dropped++
		return false
	}
}

// byteSize estimates the memory of a failure: its row, which has the text of the error, and the stack.
func (f *Failure) byteSize() int {
	const fields = 1 << 10
	size := fields + len(f.Stack)
	if r := f.Resource; r != nil {
		size += len(r.EncodedObject) + len(r.Metadata)
		for _, tag := range r.Tags {
			size += len(tag)
		}
		for _, e := range r.Errors {
			size += len(e.Error) + len(e.Trace)
		}
	}
	return size
}

// logDropped logs how many failures were dropped, unless that was done within the interval.
func (f *failures) logDropped(every time.Duration) {
	f.mu.Lock()
	dropped := f.dropped
	if dropped == 0 || (!f.logged.IsZero() && time.Since(f.logged) < every) {
		f.mu.Unlock()
		return
	}
	f.dropped, f.logged = 0, time.Now()
	f.mu.Unlock()
	f.client.config.Logger.Warn("the ErrorHandler is too slow: failures were not given to it", "failures", dropped)
}

// callHandlers calls the ErrorHandler for one failure after the other.
func (f *failures) callHandlers() {
	defer close(f.done)
	for failure := range f.queue {
		f.mu.Lock()
		f.bytes -= failure.byteSize()
		f.mu.Unlock()
		f.callHandler(failure)
		f.logDropped(logDroppedEvery)
	}
}

func (f *failures) callHandler(failure Failure) {
	ctx := f.contextOf(&failure)
	defer func() {
		if v := recover(); v != nil {
			Logger(ctx).Error("the ErrorHandler panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f.client.config.ErrorHandler(ctx, failure)
}

// contextOf returns the context for the ErrorHandler: its Logger has the fields of the failure.
func (f *failures) contextOf(failure *Failure) context.Context {
	call := &Call{Operation: failure.Operation, Kind: failure.Kind}
	if failure.Resource != nil {
		call.Resources = []*deltatype.ResourceRow{failure.attemptedRow()}
	} else {
		call.Pass = &PassCall{
			WorkflowID: failure.pass.WorkflowID, RunID: failure.RunID, Attempt: int(failure.pass.Attempt), Options: InformOptions{Shard: failure.Shard},
		}
	}
	return context.WithValue(f.client.withClient(f.client.stopping), callKey{}, call)
}

// close logs the remaining counts, and waits for the ErrorHandler, up to handlerPatience.
func (f *failures) close() {
	f.log.flush()
	f.mu.Lock()
	isHanding := !f.closed && f.queue != nil
	f.closed = true
	if isHanding {
		close(f.queue)
	}
	f.mu.Unlock()
	f.logDropped(0)
	if !isHanding {
		return
	}
	select {
	case <-f.done:
	case <-time.After(handlerPatience):
		f.client.config.Logger.Warn("the ErrorHandler has not returned; the client has stopped without it")
	}
}
