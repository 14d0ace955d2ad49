package activities

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// feeder hands claimed members to Work.
type feeder struct {
	*batchRun
	results chan<- *claimed
	stopped func() bool
	// calls are run by goroutines that have finished earlier calls.
	calls   chan func()
	workers sync.WaitGroup
	// working counts the goroutines that call Work.
	working atomic.Int64
	// released is set when members were not worked because the worker stops.
	released atomic.Bool
}

// claimAndWork claims members and hands them to Work; members with a rated limit key when the rate allows their calls.
// It returns the members that it could not claim once all others are handed over, except those that wait for a full
// namespace.
func (f *feeder) claimAndWork(ctx context.Context, ids []int64) (missing []int64, err error) {
	withheld := len(ids)
	sets, err := f.takeSlots(context.WithoutCancel(ctx), f.in.Kind, ids)
	if err != nil {
		return nil, fmt.Errorf("taking slots of the limit keys of members of %s: %w", f.in.WorkflowID, err)
	}
	for _, one := range sets {
		withheld -= len(one.ids)
	}
	f.countWithheld(withheld)
	var handed sync.WaitGroup
	defer handed.Wait()
	for _, one := range sets {
		if len(one.ids) == 0 {
			continue
		}
		if !f.awaitCall(one) {
			return missing, errMembersLeft
		}
		left, err := f.claimAndHand(ctx, one.ids, &handed)
		if err != nil {
			return nil, err
		}
		missing = append(missing, left...)
	}
	return missing, nil
}

// claimAndHand claims members and hands them to Work. The caller waits for handed. It returns the members that it could
// not claim.
func (f *feeder) claimAndHand(ctx context.Context, ids []int64, handed *sync.WaitGroup) (missing []int64, err error) {
	taken, err := f.claimRows(context.WithoutCancel(ctx), f.in.Kind, ids)
	if err != nil {
		return nil, fmt.Errorf("claiming members of %s: %w", f.in.WorkflowID, err)
	}
	there := make([]int64, len(taken))
	for i, one := range taken {
		there[i] = one.worked.ID
	}
	missing = excludeIDs(ids, there)
	type call struct {
		namespace string
		finalizes bool
	}
	byCall := map[call][]*claimed{}
	for _, one := range taken {
		if one.outcome.lost {
			f.results <- one
			continue
		}
		of := call{one.worked.Namespace, one.worked.IsFinalizing()}
		byCall[of] = append(byCall[of], one)
	}
	for of, members := range byCall {
		handed.Add(1)
		f.handToWork(of.namespace, members, f.takesMany() && !of.finalizes, sync.OnceFunc(handed.Done))
	}
	return missing, nil
}

// handToWork works members of one namespace, in one call if together is set. It calls over when all are handed over, or
// when they wait for a slot of the namespace, because the other namespaces do not wait for them.
func (f *feeder) handToWork(namespace string, members []*claimed, together bool, over func()) {
	sets := len(members)
	if together {
		sets = 1
	}
	var next atomic.Int64
	for range min(sets, max(f.Parallelism, 1)) {
		f.working.Add(1)
		f.workers.Go(func() {
			defer f.working.Add(-1)
			defer over()
			for {
				i := int(next.Add(1)) - 1
				if i >= sets {
					return
				}
				set := members
				if !together {
					set = members[i : i+1]
				}
				if f.Limit != nil && f.Limit.IsFull(namespace) {
					over()
				}
				f.workSet(set)
			}
		})
	}
}

func (f *feeder) workSet(set []*claimed) {
	if f.stopped() {
		for _, one := range set {
			one.outcome = Outcome{Verdict: VerdictReleased}
		}
	} else {
		f.workRows(set, func(call func()) { spawnCall(f.calls, call) })
	}
	for _, one := range set {
		if one.outcome.Verdict == VerdictReleased {
			f.released.Store(true)
		}
		f.results <- one
	}
}

// spawnCall runs a call in a goroutine that has finished earlier calls and so has a grown stack, or in a new one. Such
// goroutines wait for the next call until the channel is closed. A call that never returns keeps its goroutine.
func spawnCall(calls chan func(), call func()) {
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
