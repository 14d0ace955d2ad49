package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// firstAwaitPoll and maxAwaitPoll bound how often rows are looked at that callers wait for.
	firstAwaitPoll = 10 * time.Millisecond
	maxAwaitPoll   = 200 * time.Millisecond
	awaitTimeout   = 10 * time.Second
)

// awaiter waits for outcomes. All callers share one statement at a time, in a goroutine that runs only while there are
// callers.
type awaiter struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	calls   map[*awaitCall]struct{}
	polling bool
	// again resets the polls to short intervals, because a new caller waits.
	again bool
}

// awaitCall is a caller that waits for a generation of a row.
type awaitCall struct {
	id, generation int64
	// waits describes the parent that the row waited for at the latest poll; empty if it did not wait.
	waits string
	// done receives the answer.
	done chan awaitAnswer
}

// awaitAnswer reports that a generation has settled, or why that is unknown.
type awaitAnswer struct {
	kindPaused bool
	// blocked describes a parent that the row waits for and that will not be synced by itself; empty if there is none.
	blocked string
	err     error
}

// await returns when a generation of a row has settled: it was synced; or the row is degraded, deleted, paused itself or
// with its kind, or gone; or it waits for a parent that will not be synced by itself.
func (a *awaiter) await(ctx context.Context, id, generation int64) (awaitAnswer, error) {
	call := &awaitCall{id: id, generation: generation, done: make(chan awaitAnswer, 1)}
	a.mu.Lock()
	if a.calls == nil {
		a.calls = map[*awaitCall]struct{}{}
	}
	a.calls[call] = struct{}{}
	a.again = true
	if !a.polling {
		a.polling = true
		go a.run()
	}
	a.mu.Unlock()
	select {
	case answer := <-call.done:
		return answer, answer.err
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.calls, call)
		err := withCause(ctx, ctx.Err())
		if call.waits != "" {
			err = fmt.Errorf("it %s: %w", call.waits, err)
		}
		return awaitAnswer{}, err
	}
}

// run polls until no caller waits.
func (a *awaiter) run() {
	for polls := backoff.New(firstAwaitPoll, maxAwaitPoll); ; {
		time.Sleep(polls.Delay())
		a.mu.Lock()
		if len(a.calls) == 0 {
			a.polling = false
			a.mu.Unlock()
			return
		}
		if a.again {
			a.again = false
			polls.Reset()
		}
		calls := slices.Collect(maps.Keys(a.calls))
		a.mu.Unlock()
		a.answerSettled(calls)
	}
}

// answerSettled answers the callers whose rows have settled. If the database cannot be reached for a while, it answers
// none.
func (a *awaiter) answerSettled(calls []*awaitCall) {
	ids := make([]int64, len(calls))
	for i, call := range calls {
		ids[i] = call.id
	}
	slices.Sort(ids)
	ctx, cancel := context.WithTimeout(context.Background(), awaitTimeout)
	defer cancel()
	rows, err := db.New().ResourcesAwaited(ctx, a.pool, slices.Compact(ids))
	if err != nil {
		if db.IsTransient(err) {
			return
		}
		err = fmt.Errorf("reading how the resource stands: %w", err)
	}
	byID := map[int64]db.ResourcesAwaitedRow{}
	var parents []string
	for _, row := range rows {
		byID[row.ID] = row
		if row.AwaitsParent {
			parents = append(parents, row.AwaitedParents...)
		}
	}
	var awaited db.AwaitedResources
	if len(parents) > 0 {
		slices.Sort(parents)
		if awaited, err = db.ReadAwaited(ctx, a.pool, slices.Compact(parents)); err != nil {
			if db.IsTransient(err) {
				return
			}
			err = fmt.Errorf("reading what the resource waits for: %w", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, call := range calls {
		row, there := byID[call.id]
		blocked := ""
		if call.waits = ""; row.AwaitsParent {
			if found := awaited.Find(deltatype.Ref{Kind: row.Kind, ObjectID: row.ObjectID}, row.AwaitedParents); found != nil {
				if call.waits = found.Describe(); !found.IsOnItsWay() {
					blocked = call.waits
				}
			}
		}
		if err != nil || !there || blocked != "" || hasSettled(row, call.generation) {
			call.done <- awaitAnswer{kindPaused: row.KindPaused, blocked: blocked, err: err}
			delete(a.calls, call)
		}
	}
}

// hasSettled reports whether a generation needs no more attempts, or gets none.
func hasSettled(row db.ResourcesAwaitedRow, generation int64) bool {
	switch row.State {
	case deltatype.ResourceStateSynced, deltatype.ResourceStateDegraded, deltatype.ResourceStateDeleted, deltatype.ResourceStateUnknown:
		return true
	default:
		return row.Paused || row.KindPaused || row.SyncedGeneration >= generation
	}
}
