package delta

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// maxSingles is how many informs run by themselves at once; those that come meanwhile are gathered.
	maxUngrouped = 2
	// maxGathered is how many of them one statement takes.
	maxGroupSize      = 256
	defaultStuckAfter = 100 * time.Millisecond
	// gatheredLockTimeout bounds how long a gathered statement waits for locks: one row that a transaction holds is not
	// to keep back the others.
	groupLockTimeout = 50 * time.Millisecond
)

// batcher is group commit for single informs: those that come while others are under way are written together, by one
// statement, instead of waiting for a connection each. An inform that comes alone is written at once, by itself. What
// cannot be written together is written alone, so that each caller gets its own error.
type groupCommit struct {
	writeOne   func(context.Context, deltatype.ObjectInformParams) (*deltatype.ObjectInformResult, error)
	writeGroup func(context.Context, []deltatype.ObjectInformParams) ([]*deltatype.ObjectInformResult, error)
	// stuckAfter is when a statement that still runs, perhaps waiting for somebody's lock, no longer keeps others back.
	stuckAfter time.Duration

	mu      sync.Mutex
	running int
	waiting []*informCall
	// writers are under way. Those who wait for them take the group away: one that is waited for takes no more.
	writers *sync.WaitGroup
}

// informCall is a caller that waits.
type informCall struct {
	ctx    context.Context //nolint:containedctx // a call that is handed to another goroutine
	params deltatype.ObjectInformParams
	// done gets the result, or nil where the caller has to write by itself.
	done chan *deltatype.ObjectInformResult
}

func (b *groupCommit) inform(ctx context.Context, params deltatype.ObjectInformParams) (*deltatype.ObjectInformResult, error) {
	b.mu.Lock()
	if b.running < maxUngrouped && len(b.waiting) == 0 {
		release := b.takeSlot()
		b.mu.Unlock()
		defer release()
		return b.writeOne(ctx, params)
	}
	call := &informCall{ctx: ctx, params: params, done: make(chan *deltatype.ObjectInformResult, 1)}
	b.waiting = append(b.waiting, call)
	b.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, informError([]deltatype.ObjectInformParams{params}, withCause(ctx, ctx.Err()))
	case result := <-call.done:
		if result == nil {
			return b.writeOne(ctx, params)
		}
		return result, nil
	}
}

// takeSlot takes a place and returns what gives it back, once, to those who wait. The lock is held.
func (b *groupCommit) takeSlot() (release func()) {
	b.running++
	var once sync.Once
	vacate := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running--
		if set := b.takeGroup(); len(set) > 0 {
			next := b.takeSlot()
			if b.writers == nil {
				b.writers = new(sync.WaitGroup)
			}
			b.writers.Go(func() {
				defer next()
				b.commitGroup(set)
			})
		}
	}
	stuck := time.AfterFunc(b.stuckAfter, func() { once.Do(vacate) })
	return func() {
		stuck.Stop()
		once.Do(vacate)
	}
}

// takeGroup removes the next set from those who wait: each object once, because callers do not expect to be overtaken within
// a statement. The lock is held.
func (b *groupCommit) takeGroup() []*informCall {
	var set, later []*informCall
	taken := map[objectKey]bool{}
	for _, call := range b.waiting {
		key := objectKey{call.params.Kind, call.params.ResourceID}
		switch {
		case call.ctx.Err() != nil:
		case len(set) == maxGroupSize || taken[key]:
			later = append(later, call)
		default:
			taken[key] = true
			set = append(set, call)
		}
	}
	b.waiting = later
	return set
}

type objectKey struct{ kind, id string }

// commitGroup writes a set, and tells its callers.
func (b *groupCommit) commitGroup(set []*informCall) {
	params := make([]deltatype.ObjectInformParams, len(set))
	for i, call := range set {
		params[i] = call.params
	}
	// The set has the values of one of its callers, and goes on for as long as any of them waits.
	ctx, cancel := context.WithCancel(context.WithoutCancel(set[0].ctx))
	defer cancel()
	var waiting atomic.Int64
	waiting.Store(int64(len(set)))
	for _, call := range set {
		stop := context.AfterFunc(call.ctx, func() {
			if waiting.Add(-1) == 0 {
				cancel()
			}
		})
		defer stop()
	}
	results, err := b.writeGroup(ctx, params)
	for i, call := range set {
		if err != nil {
			call.done <- nil
			continue
		}
		call.done <- results[i]
	}
}

// wait returns when what was gathered before is no longer under way.
func (b *groupCommit) wait() {
	b.mu.Lock()
	writers := b.writers
	b.writers = nil
	b.mu.Unlock()
	if writers != nil {
		writers.Wait()
	}
}
