package activities

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/db"
)

// Batch names the resources that one workflow owns, and the database that they are in. Members are named by the ids of their
// rows, which say nothing of the objects. They are fixed when it starts.
type Batch struct {
	Installation string `json:"installation"`
	Kind         string `json:"kind"`
	// WorkflowID is the batch's own: the rows of its members have it.
	WorkflowID string `json:"workflow_id"`
	// IDs are those of the members' rows, in the order of their object ids; Generations are theirs when the batch began.
	IDs         Numbers `json:"ids"`
	Generations Numbers `json:"generations"`
	// Hashed tells that object ids are kept from Temporal.
	Hashed bool `json:"hashed,omitempty"`
}

// BatchStep is what a step of a batch came to.
type BatchStep struct {
	// Resting is how many members rest with the batch. The next ones of them are due after Wait. None, and the batch ends.
	Resting int           `json:"resting"`
	Wait    time.Duration `json:"wait,omitempty"`
	// Progress counts outcomes of Work, of all steps of an attempt.
	Progress
}

// Progress counts what became of the members of a batch.
type Progress struct {
	Synced   int `json:"synced,omitempty"`
	Failed   int `json:"failed,omitempty"`
	Degraded int `json:"degraded,omitempty"`
	Snoozed  int `json:"snoozed,omitempty"`
	Deleted  int `json:"deleted,omitempty"`
	// Left is how many results came too late: the resource went on, or was taken over, meanwhile.
	Left int `json:"left,omitempty"`
	// Failures has some of those that failed or degraded.
	Failures []BatchFailure `json:"failures,omitempty"`
}

// BatchFailure is a member that goes on in its own workflow.
type BatchFailure struct {
	// ID is the object's id, or its hash where object ids are kept from Temporal.
	ID string `json:"id"`
	// Error is the beginning of its error; empty where object ids are kept from Temporal.
	Error string `json:"error,omitempty"`
}

// maxFailures bounds how many failures a history names.
const maxFailures = 20

const (
	// claimMost is how many members are claimed at once, unless one call takes more of them.
	claimMost = 500
	// flushMost and flushEvery say when results are written: there are so many of them, or the first of them has waited.
	flushMost  = 1000
	flushEvery = 200 * time.Millisecond
	// claimSoon is how much of the dispatcher's lease has to be left, so that a claim leaves dispatch_at as it is; keepEvery
	// is well within it.
	claimSoon = 20 * time.Second
	keepEvery = 5 * time.Second
	// maxLost is how many attempts members lose together with their worker: one whose Work kills the process takes those that
	// were claimed with it along. After that each goes on by itself.
	maxLost = 2
)

// AttemptBatch brings the members of a batch one step on: it claims them in sets, calls Work for each, and writes results in
// sets while it goes on. It may run twice, late, or for members that went on: each write finds, member by member, the
// generation and attempt that it was made for, or changes nothing. A member whose result was written is not claimed again.
func (a *Activities) AttemptBatch(ctx context.Context, in Batch) (BatchStep, error) {
	if err := a.check(in.Installation, in.Kind); err != nil {
		return BatchStep{}, err
	}
	run := &batchRun{Activities: a, in: in, ids: in.IDs.All(), generations: in.Generations.All(), held: map[int64]struct{}{}}
	if len(run.ids) != len(run.generations) {
		return BatchStep{}, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("the batch has %d members and %d generations", len(run.ids), len(run.generations)), Refused, nil)
	}
	if activity.IsActivity(ctx) && activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &run.progress) // what an earlier try has done counts too
	}
	defer a.heartbeatWith(ctx, func() []any { return []any{run.soFar()} })()
	defer run.keepHeld(ctx)()
	if err := run.attempt(ctx); err != nil {
		return BatchStep{}, err
	}
	if len(run.rests) == len(run.ids) {
		step := restFor(run.rests)
		step.Progress = run.soFar()
		return step, nil
	}
	step, err := a.resting(ctx, in)
	step.Progress = run.soFar()
	return step, err
}

// batchRun is one try of AttemptBatch.
type batchRun struct {
	*Activities
	in               Batch
	ids, generations []int64

	mu       sync.Mutex
	progress Progress
	// held are the members that were claimed and have no result yet.
	held map[int64]struct{}
	// rests says of the members that this try has written when they are due, counted from their results: where all members
	// rest, nobody has to ask. One that goes on meanwhile finds its own way.
	rests []time.Duration
}

// result is what became of one member.
type result struct {
	// worked is the row as it was claimed.
	worked *db.Resource
	task   Task
	// alone has the task, for a call that is of this member only.
	alone   [1]*Task
	tx      txCompletion
	outcome Outcome
	// written is the row where it holds the outcome already; left tells that Work was not begun.
	written *db.Resource
	left    bool
	// encoded is the error, as it is written. counted tells that what became of the member was counted: a set that is written
	// again has some which were.
	encoded []byte
	counted bool
}

func (r *batchRun) attempt(ctx context.Context) error {
	if err := r.recover(ctx); err != nil {
		return err
	}
	results := make(chan *result, flushMost)
	fed, writeCtx := make(chan error, 1), context.WithoutCancel(ctx)
	go func() {
		defer close(results)
		fed <- r.feed(ctx, results)
	}()
	err := r.collect(writeCtx, results)
	if feedErr := <-fed; feedErr != nil && err == nil {
		err = feedErr
	}
	return err
}

// errLeft has the members that are left given to another worker.
var errLeft = errStopping("the members that are left go to another one")

// feed claims members and has them worked, until all have been or the worker stops.
func (r *batchRun) feed(ctx context.Context, results chan<- *result) (err error) {
	ctx, unlink := r.untilStopped(ctx)
	defer unlink()
	stopping := workerStop(ctx)
	stopped := func() bool {
		select {
		case <-stopping:
			return true
		case <-ctx.Done():
			return true
		default:
			return false
		}
	}
	giveBack := r.Turns.take(ctx)
	parallel := max(r.Parallelism, 1)
	if r.Slots != nil {
		// The kind has no batches any more: calls of Work are counted by slots, of which the batch has one.
		extra, free := r.Slots.borrow(parallel - 1)
		defer free()
		parallel = 1 + extra
	}
	rows := make(chan []*result, parallel)
	var workers sync.WaitGroup
	var behind atomic.Bool
	calls := make(chan func())
	defer func() {
		giveBack()
		close(rows)
		workers.Wait()
		close(calls)
		if behind.Load() && err == nil {
			err = errLeft
		}
	}()
	for range parallel {
		workers.Go(func() {
			for set := range rows {
				if stopped() || !r.workSet(ctx, set, results, func(call func()) { spawn(calls, call) }) {
					behind.Store(true)
					for _, one := range set {
						one.left = true
						results <- one
					}
				}
			}
		})
	}
	most, all := claimMost, true
	if r.Handler.WorksBatches() {
		most = max(most, len(r.ids))
	}
	for from := 0; from < len(r.ids); from += most {
		if stopped() {
			return errLeft
		}
		to := min(from+most, len(r.ids))
		claimed, err := r.claim(context.WithoutCancel(ctx), r.ids[from:to], r.generations[from:to])
		if err != nil {
			return err
		}
		all = all && len(claimed) == to-from
		for _, set := range r.sets(claimed) {
			rows <- set
		}
	}
	if all && r.Claimed != nil {
		r.Claimed(r.in.Kind, r.in.WorkflowID)
	}
	return nil
}

// sets divides what was claimed into calls: one each, or where the controller takes batches, one a namespace, since a call
// takes a place there.
func (r *batchRun) sets(claimed []*result) (sets [][]*result) {
	if !r.Handler.WorksBatches() {
		sets = make([][]*result, len(claimed))
		for i := range claimed {
			sets[i] = claimed[i : i+1]
		}
		return sets
	}
	at := map[string]int{}
	for _, one := range claimed {
		i, there := at[one.worked.Namespace]
		if !there {
			i = len(sets)
			at[one.worked.Namespace] = i
			sets = append(sets, nil)
		}
		sets[i] = append(sets[i], one)
	}
	return sets
}

func (r *batchRun) claim(ctx context.Context, ids, generations []int64) (claimed []*result, err error) {
	var rows []db.Resource
	err = retry(ctx, func(ctx context.Context) (err error) {
		rows, err = db.New().ClaimAttempts(ctx, r.Pool, db.ClaimAttemptsParams{
			Soon: claimSoon, Net: DispatchNet, Lost: workerLost,
			MaxErrors: MaxErrors, WorkflowID: r.in.WorkflowID, Kind: r.in.Kind, Ids: ids, Generations: generations,
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claiming members of %s: %w", r.in.WorkflowID, err)
	}
	results := make([]result, len(rows))
	claimed = make([]*result, len(rows))
	for i := range rows {
		one := &results[i]
		one.worked = &rows[i]
		one.tx = txCompletion{activities: r.Activities, worked: one.worked}
		one.task.CompleteTx, one.alone[0] = one.tx.complete, &one.task
		if one.task.Row, err = one.worked.Row(); err != nil {
			return nil, err
		}
		claimed[i] = one
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range claimed {
		r.held[one.worked.ID] = struct{}{}
	}
	return claimed, nil
}

// spawn runs a call in a goroutine that has finished others, whose stack has grown already, or in a new one. Those that
// finished wait for the next call until the channel is closed. A call that never returns keeps its goroutine.
func spawn(calls chan func(), call func()) {
	select {
	case calls <- call:
	default:
		go func() {
			for call != nil {
				call()
				call = <-calls
			}
		}()
	}
}

// workSet calls Work for one member, or for a set of them where the controller takes sets; begun is false where it was not
// called.
func (r *batchRun) workSet(ctx context.Context, set []*result, results chan<- *result, spawn func(call func())) (begun bool) {
	tasks := set[0].alone[:]
	for _, one := range set[1:] {
		tasks = append(tasks, &one.task)
	}
	do := r.workOne
	if r.Handler.WorksBatches() {
		do = r.Handler.WorkBatch
	}
	outcomes := r.call(ctx, tasks, do, spawn)
	if outcomes == nil {
		return false
	}
	for i, one := range set {
		one.outcome = outcomes[i]
		if one.tx.used.Load() {
			r.afterTx(ctx, one)
		}
		results <- one
	}
	return true
}

// afterTx sees whether the transaction that was to write the outcome was committed.
func (r *batchRun) afterTx(ctx context.Context, one *result) {
	got, found, err := r.get(context.WithoutCancel(ctx), Ref{Kind: one.worked.Kind, ObjectID: one.worked.ObjectID})
	if err != nil || !found {
		one.written, one.outcome.Verdict = one.worked, VerdictFailed // what the row holds decides
		return
	}
	var committed bool
	if one.outcome, committed = one.tx.judged(&got.Resource, one.outcome); committed {
		one.written = &got.Resource
	}
}

// collect writes results in sets until there are no more. A set that could not be written does not keep back those after it,
// and is tried once more at the end, if the last one could.
func (r *batchRun) collect(ctx context.Context, results <-chan *result) (err error) {
	var set []*result
	var unwritten [][]*result
	var due <-chan time.Time
	write := func() {
		if len(set) > 0 {
			if err = r.flush(ctx, set); err != nil {
				unwritten = append(unwritten, set)
			}
		}
		set, due = nil, nil
	}
	for more := true; more; {
		var one *result
		select {
		case one, more = <-results:
			if more {
				set = append(set, one)
				if due == nil {
					due = time.After(flushEvery)
				}
			}
			if !more || len(set) >= flushMost {
				write()
			}
		case <-due:
			write()
		}
	}
	for _, set := range unwritten {
		if err != nil {
			break
		}
		err = r.flush(ctx, set)
	}
	return err
}

// redispatched wakes the dispatcher of the kind.
func (a *Activities) redispatched() {
	if a.Informed != nil {
		a.Informed(a.Handler.Kind())
	}
}

func (r *batchRun) soFar() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.progress
	p.Failures = append([]BatchFailure(nil), p.Failures...)
	return p
}
