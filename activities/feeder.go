package activities

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// feeder hands what was claimed to Work.
type feeder struct {
	*batchRun
	results chan<- *claimed
	stopped func() bool
	// calls are run in goroutines that have finished others.
	calls   chan func()
	workers sync.WaitGroup
	// working counts them.
	working atomic.Int64
	// released is set when members were not worked because the worker stops.
	released atomic.Bool
}

// claimAndWork claims members and hands them to Work, those whose limit key has a rate when their calls may begin. It returns when all are handed over,
// but for those of namespaces that are full, and what could not be claimed.
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

// claimAndHand claims members and has them handed to Work, which handed waits for. It returns those that could not be claimed.
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

// handToWork has members of one namespace worked, in one call if together is true. over is called when all have been handed over, or when they wait for a slot of the namespace:
// the others do not wait for them.
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

// spawnCall runs a call in a goroutine that has finished others, whose stack has grown already, or in a new one. Those that
// finished wait for the next call until the channel is closed. A call that never returns keeps its goroutine.
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
