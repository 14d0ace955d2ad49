package delta

import (
	"context"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

const (
	// figuresEvery is how often a client writes its counts.
	figuresEvery = time.Minute
	// figuresKept is how long minutes are kept.
	figuresKept = 48 * time.Hour
	// figuresTimeout bounds a write.
	figuresTimeout = 30 * time.Second
	// figuresStopTimeout is how long Stop waits for the last write while its own context goes on.
	figuresStopTimeout = 5 * time.Second
	// durationBuckets is the number of ranges of durations of calls: up to 1 ms, 2 ms, 4 ms, and so on up to 2.3 hours, and
	// one for longer calls.
	durationBuckets = 25
)

// countedOutcomes are the outcomes of attempts, in the order of their counts.
var countedOutcomes = [...]Outcome{OutcomeSynced, OutcomeFinalized, OutcomeFailed, OutcomeDegraded, OutcomeDeleted, OutcomeSnoozed, OutcomeUndecodable}

// figures counts this client's attempts by kind, and adds them to the table once a minute, for all kinds in one statement.
// Each client writes its own counts, because a single writer would have to be notified of each attempt. A client without
// attempts writes nothing.
//
// Counting takes no lock and no memory. A client that dies loses its counts since its last write. A write whose answer is
// lost is repeated, so it may count twice.
type figures struct {
	pool   *pgxpool.Pool
	log    *slog.Logger
	every  time.Duration
	byKind map[string]*attemptCounts
	// armed is set while a write is scheduled.
	armed   atomic.Bool
	closing chan struct{}
	writes  sync.WaitGroup

	mu sync.Mutex
	// timer is for the next write; nil before the first. since is when the counts of that write began.
	timer  *time.Timer
	since  time.Time
	closed bool
}

// attemptCounts are the counts of a kind.
type attemptCounts struct {
	outcomes  [len(countedOutcomes)]atomic.Int64
	nanos     atomic.Int64
	durations [durationBuckets]atomic.Int64
}

func newFigures(pool *pgxpool.Pool, log *slog.Logger, kinds []string) *figures {
	f := &figures{pool: pool, log: log, every: figuresEvery, byKind: map[string]*attemptCounts{}, closing: make(chan struct{})}
	for _, kind := range kinds {
		f.byKind[kind] = &attemptCounts{}
	}
	return f
}

// countAttempt counts an attempt whose outcome was written.
func (f *figures) countAttempt(o *activities.Observation) {
	counts := f.byKind[o.Kind]
	if counts == nil || o.Attempt == 0 {
		return // a listing deleted the resource
	}
	counts.outcomes[slices.Index(countedOutcomes[:], outcomeName(o.Verdict, o.IsDegraded))].Add(1)
	if o.Took > 0 { // otherwise nothing was called
		counts.nanos.Add(int64(o.Took))
		counts.durations[bucketOf(o.Took)].Add(1)
	}
	if !f.armed.Load() && f.armed.CompareAndSwap(false, true) {
		f.scheduleWrite()
	}
}

// bucketOf returns the index of the range of a duration.
func bucketOf(took time.Duration) int {
	return min(bits.Len64(uint64(max(took-1, 0)/time.Millisecond)), durationBuckets-1)
}

// scheduleWrite schedules a write at the end of the minute.
func (f *figures) scheduleWrite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.since = time.Now()
	f.timer = time.AfterFunc(f.since.Truncate(f.every).Add(f.every).Sub(f.since), f.writeMinute)
}

// writeMinute writes the counts of a minute within the next seconds, so that not all clients write at once.
func (f *figures) writeMinute() {
	taken, ok := f.beginWrite()
	if !ok {
		return
	}
	defer f.writes.Done()
	select {
	case <-f.closing:
	case <-time.After(rand.N(f.every/6 + 1)): //nolint:gosec // it spreads writes
	}
	ctx, cancel := context.WithTimeout(context.Background(), figuresTimeout)
	defer cancel()
	if err := taken.addToMinute(ctx, f.pool); err != nil {
		f.log.Warn("writing figures of attempts failed; they are written with those of the next minute", "error", err)
		f.putBack(taken)
	}
}

// beginWrite takes the counts, unless the client has stopped. The caller must call writes.Done.
func (f *figures) beginWrite() (takenFigures, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return takenFigures{}, false // close takes them
	}
	f.writes.Add(1)
	f.armed.Store(false) // first, because later counts schedule the next write
	return f.takeCounts(), true
}

// putBack returns counts that could not be written.
func (f *figures) putBack(taken takenFigures) {
	for i, kind := range taken.Kinds {
		counts := f.byKind[kind]
		for o, column := range taken.outcomeColumns() {
			counts.outcomes[o].Add((*column)[i])
		}
		counts.nanos.Add(taken.nanos[i])
		for b, n := range taken.durations[i] {
			counts.durations[b].Add(n)
		}
	}
	if f.armed.CompareAndSwap(false, true) {
		f.scheduleWrite()
	}
}

// close writes the last counts. Later counts, of calls for which Stop did not wait, are lost.
func (f *figures) close(ctx context.Context) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
	close(f.closing)
	f.mu.Unlock()
	ctx, cancel := withGrace(ctx, figuresStopTimeout)
	defer cancel()
	written := make(chan struct{})
	go func() {
		defer close(written)
		f.writes.Wait()
		if err := f.takeCounts().addToMinute(ctx, f.pool); err != nil {
			f.log.Warn("figures of the last attempts are lost: they could not be written while the client stopped", "error", err)
		}
	}()
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// takenFigures are the counts of the kinds with attempts.
type takenFigures struct {
	db.AddFiguresParams
	nanos     []int64
	durations [][durationBuckets]int64
	// middle is the middle of the time in which they were counted.
	middle time.Time
}

// outcomeColumns returns the columns of countedOutcomes.
func (t *takenFigures) outcomeColumns() [len(countedOutcomes)]*[]int64 {
	return [...]*[]int64{&t.Synced, &t.Finalized, &t.Failed, &t.Degraded, &t.Deleted, &t.Snoozed, &t.Undecodable}
}

// takeCounts takes the counts, which begin at zero again.
func (f *figures) takeCounts() (t takenFigures) {
	now := time.Now()
	t.middle = now.Add(-now.Sub(f.since) / 2)
	for kind, counts := range f.byKind {
		var outcomes [len(countedOutcomes)]int64
		sum := int64(0)
		for o := range outcomes {
			outcomes[o] = counts.outcomes[o].Swap(0)
			sum += outcomes[o]
		}
		if sum == 0 {
			continue
		}
		t.Kinds = append(t.Kinds, kind)
		for o, column := range t.outcomeColumns() {
			*column = append(*column, outcomes[o])
		}
		nanos := counts.nanos.Swap(0)
		t.nanos, t.Seconds = append(t.nanos, nanos), append(t.Seconds, time.Duration(nanos).Seconds())
		var durations [durationBuckets]int64
		for b := range durations {
			durations[b] = counts.durations[b].Swap(0)
		}
		t.durations, t.Durations = append(t.durations, durations), append(t.Durations, arrayText(durations[:]))
	}
	return t
}

// arrayText formats an array for Postgres.
func arrayText(numbers []int64) string {
	text := []byte{'{'}
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return string(append(text, '}'))
}

// addToMinute adds the counts to the minute of their middle, by the clock of the database, as for all times in Delta's
// tables.
func (t takenFigures) addToMinute(ctx context.Context, pool *pgxpool.Pool) error {
	if len(t.Kinds) == 0 {
		return nil
	}
	t.Age = time.Since(t.middle)
	return db.New().AddFigures(ctx, pool, t.AddFiguresParams)
}
