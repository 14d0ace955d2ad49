package delta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// recorder is a database whose answers the test delays.
type recorder struct {
	groupCommit

	mu   sync.Mutex
	sets [][]string
	hold chan struct{}
	fail error
}

func newRecorder() *recorder {
	r := &recorder{hold: make(chan struct{})}
	r.stuckAfter = time.Hour
	r.writeOne = func(ctx context.Context, p deltatype.ObjectInformParams) (*deltatype.ObjectInformResult, error) {
		results, err := r.write(ctx, []deltatype.ObjectInformParams{p}, nil)
		if err != nil {
			return nil, err
		}
		return results[0], nil
	}
	r.writeGroup = func(ctx context.Context, set []deltatype.ObjectInformParams) ([]*deltatype.ObjectInformResult, error) {
		return r.write(ctx, set, r.fail)
	}
	return r
}

func (r *recorder) write(ctx context.Context, set []deltatype.ObjectInformParams, fail error) ([]*deltatype.ObjectInformResult, error) {
	var ids []string
	var results []*deltatype.ObjectInformResult
	for _, p := range set {
		ids = append(ids, p.ResourceID)
		results = append(results, &deltatype.ObjectInformResult{Resource: &deltatype.ResourceRow{ObjectID: p.ResourceID}})
	}
	r.mu.Lock()
	r.sets = append(r.sets, ids)
	r.mu.Unlock()
	select {
	case <-r.hold:
		return results, fail
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start informs in the background, and returns once the inform is in progress.
func (r *recorder) start(ctx context.Context, all *sync.WaitGroup, id string, answered func(*deltatype.ObjectInformResult, error)) {
	before := r.seen()
	all.Go(func() {
		answered(r.inform(ctx, deltatype.ObjectInformParams{Kind: "k", ResourceID: id}))
	})
	for r.seen() == before {
		time.Sleep(time.Millisecond)
	}
}

// seen returns the number of calls in progress.
func (r *recorder) seen() (calls int) {
	r.mu.Lock()
	for _, set := range r.sets {
		calls += len(set)
	}
	r.mu.Unlock()
	r.groupCommit.mu.Lock()
	defer r.groupCommit.mu.Unlock()
	return calls + len(r.waiting)
}

func requireOwn(t *testing.T, id string) func(*deltatype.ObjectInformResult, error) {
	return func(result *deltatype.ObjectInformResult, err error) {
		if err != nil || result.Resource.ObjectID != id {
			t.Errorf("%s: %+v %v", id, result, err)
		}
	}
}

func TestCallsThatComeMeanwhileAreOneStatement(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	var all sync.WaitGroup
	for _, id := range []string{"first", "second", "a", "b", "a", "c"} {
		r.start(t.Context(), &all, id, requireOwn(t, id))
	}
	close(r.hold)
	all.Wait()
	r.wait()
	require.ElementsMatch(t, [][]string{{"first"}, {"second"}}, r.sets[:2])
	require.ElementsMatch(t, [][]string{{"a", "b", "c"}, {"a"}}, r.sets[2:], "a statement has an object once")
}

func TestAStatementIsBounded(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	var all sync.WaitGroup
	for i := range maxUngrouped + maxGroupSize + 1 {
		id := fmt.Sprint(i)
		r.start(t.Context(), &all, id, requireOwn(t, id))
	}
	close(r.hold)
	all.Wait()
	require.Len(t, r.sets, maxUngrouped+2)
	require.ElementsMatch(t, []int{maxGroupSize, 1}, []int{len(r.sets[maxUngrouped]), len(r.sets[maxUngrouped+1])})
}

func TestInformsThatFailTogetherAreWrittenAlone(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	r.fail = errors.New("one of them is bad")
	var all sync.WaitGroup
	for _, id := range []string{"first", "second", "a", "b"} {
		r.start(t.Context(), &all, id, requireOwn(t, id))
	}
	close(r.hold)
	all.Wait()
	require.ElementsMatch(t, [][]string{{"a", "b"}, {"a"}, {"b"}}, r.sets[2:])
}

func TestAStatementThatIsStuckKeepsNobodyBack(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	r.stuckAfter = 200 * time.Millisecond
	var all sync.WaitGroup
	for _, id := range []string{"first", "second", "a"} {
		all.Go(func() {
			requireOwn(t, id)(r.inform(t.Context(), deltatype.ObjectInformParams{Kind: "k", ResourceID: id}))
		})
	}
	require.Eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.sets) == 3 }, 3*time.Minute, time.Millisecond)
	close(r.hold)
	all.Wait()
	r.wait()
	require.Zero(t, r.running)
}

func TestAStatementEndsWhenNobodyWaitsForItAnyLonger(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	defer r.wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for _, id := range []string{"first", "second", "a", "b"} {
		r.start(ctx, &all, id, func(_ *deltatype.ObjectInformResult, err error) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	cancel()
	all.Wait()
	r.wait()
	require.Zero(t, r.running)
}

// A stopping client waits for informs in progress, while other goroutines continue to inform with it.
func TestWaitingDoesNotIncludeLaterInforms(t *testing.T) {
	t.Parallel()
	answered := newRecorder()
	close(answered.hold)
	var all sync.WaitGroup
	var over atomic.Bool
	told := notifier{log: slog.New(slog.DiscardHandler)}
	settings, err := pgxpool.ParseConfig("postgres://127.0.0.1:1/nowhere")
	require.NoError(t, err)
	settings.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		if !over.Load() {
			told.notifySoon("k") // so that there is always another round
		}
		return nil, errors.New("nowhere")
	}
	told.pool, err = pgxpool.NewWithConfig(t.Context(), settings)
	require.NoError(t, err)
	defer told.pool.Close()
	goOn := func(do func()) {
		all.Go(func() {
			for !over.Load() {
				do()
			}
		})
	}
	for i := range 16 {
		goOn(func() {
			_, _ = answered.inform(t.Context(), deltatype.ObjectInformParams{Kind: "k", ResourceID: fmt.Sprint(i)})
		})
	}
	// Later informs continue until these waits return: waiting for them too would never end.
	var waiting sync.WaitGroup
	for range 8 {
		waiting.Go(func() {
			for range 1000 {
				answered.wait()
			}
		})
	}
	waiting.Go(func() {
		for range 20 {
			told.notifySoon("k")
			told.wait()
		}
	})
	waited := make(chan struct{})
	go func() {
		waiting.Wait()
		close(waited)
	}()
	select {
	case <-waited:
	case <-time.After(3 * time.Minute): // as long as other tests wait on a busy machine
		t.Error("what comes later is waited for")
	}
	over.Store(true)
	all.Wait()
	told.wait()
}
