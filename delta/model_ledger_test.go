package delta_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/soak"
)

// ledger is the outside world of a storm: it executes Work, records each call, and compares it with earlier ones.
type ledger struct {
	t *testing.T
	// long is true for a soak: then some faults and calls of Work last longer than a claim.
	long bool
	calm atomic.Bool

	mu     sync.Mutex
	random *rand.Rand
	begun  int
	// last has the latest call of Work, done the latest deed, and seen the latest row that was read, by object id.
	last map[string]call
	done map[string]deed
	seen map[string]deltatype.ResourceRow
	// synced are resources that may have been synced once, by object id: their children may be worked.
	synced map[string]bool
	// changed is the number of calls after which the latest plan of a resource was first done.
	changed map[string]change
}

type change struct {
	plan  string
	after int
}

// deed is the effect of a call of Work outside.
type deed struct {
	row, generation int64
	plan            string
}

// call is a call of Work.
type call struct {
	deed
	number  int // among all calls
	attempt int
	running bool
	verdict verdict
}

// verdict is the result of a call of Work.
type verdict string

const (
	done     verdict = "done"
	fails    verdict = "fails"
	snoozes  verdict = "snoozes"
	degrades verdict = "degrades"
	deletes  verdict = "deletes"
	// released is a failure after the claim was lost: the attempt does not count.
	released verdict = "released"
)

func newLedger(t *testing.T, seed uint64) *ledger {
	_, long := soak.Given(t)
	return &ledger{
		t: t, long: long, random: rand.New(rand.NewPCG(seed, 1)),
		last: map[string]call{}, done: map[string]deed{}, seen: map[string]deltatype.ResourceRow{}, synced: map[string]bool{}, changed: map[string]change{},
	}
}

func (l *ledger) calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// latestOf returns the latest call for a resource, and its latest deed.
func (l *ledger) latestOf(id string) (call, deed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[id], l.done[id]
}

// workWith returns the Work of a process with a pool. During a storm, a call may have any result.
func (l *ledger) workWith(pool *pgxpool.Pool) func(context.Context, job) error {
	return func(ctx context.Context, j job) (err error) {
		dice, pause := l.beginCall(j)
		what := fails
		defer func() { l.endCall(ctx, j, what) }()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		if l.calm.Load() {
			dice = -1
		}
		switch dice {
		case 0, 1:
			return errors.New("no luck")
		case 2:
			what = snoozes
			return delta.ResourceSnooze(pause)
		case 3:
			what = degrades
			return delta.ResourceDegrade(errors.New("hopeless"))
		case 4:
			what = deletes
			return delta.ResourceDelete(nil)
		case 5:
			panic("out of order")
		case 6:
			return completeInTx(ctx, pool, j, false)
		case 7:
			l.maySync(j)
			if err := completeInTx(ctx, pool, j, true); err != nil {
				// The answer to the commit may be lost: the row shows the result.
				l.noteDone(j)
				return err
			}
		}
		what = done
		l.maySync(j)
		return nil
	}
}

// maySync notes that a call may sync its resource, before it does.
func (l *ledger) maySync(j job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced[j.ObjectID] = true
}

// completeInTx completes a resource in a user's transaction, and commits it or not.
func completeInTx(ctx context.Context, pool *pgxpool.Pool, j job, commits bool) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit it does nothing
	if err := j.CompleteTx(ctx, tx); err != nil || !commits {
		return err
	}
	return tx.Commit(ctx)
}

// beginCall notes the beginning of a call, and draws its result and duration.
func (l *ledger) beginCall(j job) (dice int, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun++
	now := call{deed: deedOf(j), number: l.begun, attempt: j.Attempt, running: true}
	l.compareCalls(j, l.last[j.ObjectID], now)
	l.last[j.ObjectID] = now
	dice, pause = l.random.IntN(14), time.Duration(l.random.IntN(30))*time.Millisecond
	switch long := l.random.IntN(16); {
	case l.calm.Load():
	case long == 0 && l.long:
		pause *= 300 // longer than a claim
	case long < 2:
		pause *= 100
	case long < 7:
		pause *= 30
	}
	return dice, pause
}

func deedOf(j job) deed { return deed{j.ID, j.Generation, j.Object.Plan} }

// compareCalls fails the test if a call must not follow the one before. The lock is held.
func (l *ledger) compareCalls(j job, before, now call) {
	switch {
	case before.running:
		l.t.Errorf("%s: Work runs twice at once: %+v and %+v", j.ObjectID, before, now)
	case j.Attempt < 1 || j.Attempt > stormAttempts:
		l.t.Errorf("%s: attempt %d of %d", j.ObjectID, j.Attempt, stormAttempts)
	case now.row < before.row || (now.row == before.row && now.generation < before.generation):
		l.t.Errorf("%s: it is worked as it was before: %+v after %+v", j.ObjectID, now, before)
	case before.deed == now.deed && now.attempt < before.attempt+1 && before.verdict != snoozes && before.verdict != released:
		l.t.Errorf("%s: an attempt was not counted: %+v after %+v", j.ObjectID, now, before)
	case before.row == now.row && before.generation == now.generation && before.plan != now.plan:
		l.t.Errorf("%s: one generation has two objects: %+v after %+v", j.ObjectID, now, before)
	}
	for _, parent := range j.Parents {
		if !l.synced[parent.ObjectID] {
			l.t.Errorf("%s: it is worked before its parent %s was synced once: %+v", j.ObjectID, parent.ObjectID, now)
		}
	}
	var want []int
	for n := 1; n < j.Attempt; n++ {
		want = append(want, n)
	}
	if got := lastAttempts(j.ResourceRow, len(want)); !slices.Equal(got, want) {
		l.t.Errorf("%s: attempts have left no trace: attempt %d comes after those of the errors %v: %+v", j.ObjectID, j.Attempt, got, j.Errors)
	}
}

// noteDone notes the deed of a call.
func (l *ledger) noteDone(j job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[j.ObjectID] = deedOf(j)
}

// endCall notes the result of a call.
func (l *ledger) endCall(ctx context.Context, j job, what verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cause := context.Cause(ctx); what == fails && cause != nil && strings.Contains(cause.Error(), "claim was lost") {
		what = released
	}
	if what == done {
		l.done[j.ObjectID] = deedOf(j)
		if l.changed[j.ObjectID].plan != j.Object.Plan {
			l.changed[j.ObjectID] = change{j.Object.Plan, l.begun}
		}
	}
	last := l.last[j.ObjectID]
	if last.deed != deedOf(j) || last.attempt != j.Attempt {
		return // the overlap is noted already: another call is running
	}
	last.running, last.verdict = false, what
	l.last[j.ObjectID] = last
}

// requireTouched fails the test if a resource was not worked after the last change of its parents.
func (l *ledger) requireTouched(row *deltatype.ResourceRow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, parent := range row.Parents {
		if last, changed := l.last[row.ObjectID], l.changed[parent.ObjectID]; last.number <= changed.after {
			l.t.Errorf("%s: its parent %s has changed since it was worked: %+v before %+v", row.ObjectID, parent.ObjectID, last, changed)
		}
	}
}

// checkRow compares a row with its previous read.
func (l *ledger) checkRow(row *deltatype.ResourceRow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, ok := l.seen[row.ObjectID]
	l.seen[row.ObjectID] = *row
	if row.Attempt < 0 || row.Attempt > row.MaxAttempts || row.SyncedGeneration > row.Generation {
		l.t.Errorf("a row can not be like that: %+v", row)
	}
	if ok && before.ID == row.ID && (row.Generation < before.Generation || row.SyncedGeneration < before.SyncedGeneration || row.SyncCount < before.SyncCount) {
		l.t.Errorf("a row goes back: %+v after %+v", row, before)
	}
}
