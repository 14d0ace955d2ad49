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

// awaiter waits for outcomes. All callers share one statement at a time, by a goroutine that is there only while somebody waits.
type awaiter struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	calls   map[*awaitCall]struct{}
	polling bool
	// again begins with short polls, because somebody has just begun to wait.
	again bool
}

// awaitCall is a caller that waits for a generation of a row.
type awaitCall struct {
	id, generation int64
	// waits says what parent the row waits for, when it was last looked at; empty where it does not.
	waits string
	// done gets the answer.
	done chan awaitAnswer
}

// awaitAnswer is that a generation has settled, or why that cannot be said.
type awaitAnswer struct {
	kindPaused bool
	// blocked says what parent the row waits for that is not on its way; empty where it does not.
	blocked string
	err     error
}

// await returns when a generation of a row has settled: it was synced, or the row is degraded, deleted, paused, with its kind perhaps, or gone, or waits for a parent
// that is not on its way.
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

// run polls until nobody waits.
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

// answerSettled answers those whose rows have settled. A database that cannot be reached for a while answers nobody.
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
			if found := awaited.Find(deltatype.Ref{Kind: row.Kind, ID: row.ObjectID}, row.AwaitedParents); found != nil {
				if call.waits = found.Words(); !found.IsOnItsWay() {
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
