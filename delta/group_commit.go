package delta

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// maxUngrouped is how many informs run by themselves at once; further ones wait for a group.
	maxUngrouped = 2
	// maxGroupSize bounds the informs of one group.
	maxGroupSize      = 256
	defaultStuckAfter = 100 * time.Millisecond
	// groupLockTimeout bounds how long the statement of a group waits for locks, so that a transaction that locks one row
	// does not delay the other informs.
	groupLockTimeout = 50 * time.Millisecond
)

// groupCommit is group commit for informs of one object. Informs that arrive while others run are written together, in one
// statement, instead of waiting for a connection each. A lone inform is written at once. Informs that cannot be written
// together are written one by one, so that each caller gets its own error.
type groupCommit struct {
	writeOne   func(context.Context, deltatype.ObjectInformParams) (*deltatype.ObjectInformResult, error)
	writeGroup func(context.Context, []deltatype.ObjectInformParams) ([]*deltatype.ObjectInformResult, error)
	// stuckAfter is the time after which a running statement, which perhaps waits for a lock, no longer delays the next
	// group.
	stuckAfter time.Duration

	mu      sync.Mutex
	running int
	waiting []*informCall
	// writers counts the groups in progress. wait takes the WaitGroup away, so that no group is added to one that is waited
	// for.
	writers *sync.WaitGroup
}

// informCall is a waiting caller.
type informCall struct {
	ctx    context.Context //nolint:containedctx // a call that is handed to another goroutine
	params deltatype.ObjectInformParams
	// done receives the result, or nil if the caller must write by itself.
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

// takeSlot takes a slot, and returns a function that releases it once, which starts the next group. The lock is held.
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

// takeGroup removes the next group from the waiting calls. It has each object once, because a caller does not expect its
// inform to be overtaken within a statement. The lock is held.
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

// commitGroup writes a group, and answers its callers.
func (b *groupCommit) commitGroup(set []*informCall) {
	params := make([]deltatype.ObjectInformParams, len(set))
	for i, call := range set {
		params[i] = call.params
	}
	// The group has the values of one caller's context, and goes on for as long as any caller waits.
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

// wait returns when the groups that were started before have ended.
func (b *groupCommit) wait() {
	b.mu.Lock()
	writers := b.writers
	b.writers = nil
	b.mu.Unlock()
	if writers != nil {
		writers.Wait()
	}
}
