package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// linesBuffer is a log that the goroutine of a timer writes too.
type linesBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *linesBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// takeLines returns the lines since its last call.
func (b *linesBuffer) takeLines(t *testing.T) (all []map[string]any) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for decoder := json.NewDecoder(&b.buf); decoder.More(); {
		var line map[string]any
		require.NoError(t, decoder.Decode(&line))
		all = append(all, line)
	}
	b.buf.Reset()
	return all
}

// newFailureLog returns the failure log of a client that is not started.
func newFailureLog(logs *linesBuffer) *failureLog {
	c := &Client{config: Config{Logger: slog.New(slog.NewJSONHandler(logs, nil))}}
	return &failureLog{client: c, window: failureWindow}
}

// failed returns the failure of an attempt.
func failed(kind, id string, err error) Failure {
	return Failure{Operation: OperationWork, Kind: kind, Err: err, Resource: &deltatype.ResourceRow{ObjectKind: kind, ObjectID: id, Namespace: "tenant"}}
}

func TestMassesOfFailuresAreCountedForTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs linesBuffer
		l := newFailureLog(&logs)
		began := time.Now()
		for _, f := range []struct {
			n    int
			text string
		}{{10, "first"}, {3, "gone"}, {7, "503"}, {1, "odd"}, {5, "429"}} {
			for i := range f.n {
				l.add(failed("page", fmt.Sprintf("%s-%d", f.text, i), errors.New(f.text)))
			}
		}
		l.add(failed("user", "a", errors.New("403"))) // another kind has its own lines
		degraded := failed("page", "z", errors.New("the last"))
		degraded.IsDegraded = true
		l.add(degraded) // and so has another level
		lines := logs.takeLines(t)
		require.Len(t, lines, 12)
		for i := range 10 {
			require.Equal(t, "an attempt failed; it is tried again", lines[i]["msg"])
			require.Equal(t, fmt.Sprintf("first-%d", i), lines[i]["object_id"])
		}
		require.Equal(t, "user", lines[10]["kind"])
		require.Equal(t, "WARN", lines[11]["level"])

		time.Sleep(failureWindow - time.Nanosecond)
		synctest.Wait()
		require.Empty(t, logs.takeLines(t), "the window is open")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 10*time.Second, time.Since(began))
		lines = logs.takeLines(t)
		require.Len(t, lines, 1, "only masses of failures have a summary")
		require.Equal(t, "INFO", lines[0]["level"])
		require.Equal(t, "more attempts of the kind have failed; they have no lines of their own", lines[0]["msg"])
		require.Equal(t, "page", lines[0]["kind"])
		require.EqualValues(t, 16, lines[0]["failures"])
		require.Equal(t, "10s", lines[0]["within"])
		require.Equal(t, []any{"7 × 503", "5 × 429", "3 × gone"}, lines[0]["errors"])

		// The next failure opens another window.
		for range 11 {
			l.add(failed("page", "again", errors.New("500")))
		}
		require.Len(t, logs.takeLines(t), 10)
		l.flush()
		lines = logs.takeLines(t)
		require.Len(t, lines, 1)
		require.EqualValues(t, 1, lines[0]["failures"])
		require.Equal(t, []any{"1 × 500"}, lines[0]["errors"])
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, logs.takeLines(t), "flushed failures are not logged again")
	})
}

func TestPassesThatFailInMassesAreNotCalledAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs linesBuffer
		l := newFailureLog(&logs)
		for range loggedFailures + 2 {
			l.add(Failure{Operation: OperationList, Kind: "page", Err: errors.New("503")})
			degraded := failed("page", "z", errors.New("429"))
			degraded.IsDegraded = true
			l.add(degraded) // of the same level
		}
		require.Len(t, logs.takeLines(t), 2*loggedFailures)
		l.flush()
		summaries := map[any]any{}
		for _, line := range logs.takeLines(t) {
			require.EqualValues(t, 2, line["failures"])
			summaries[line["msg"]] = line["errors"]
		}
		require.Equal(t, map[any]any{
			"more passes of the kind's informer have failed; they have no lines of their own": []any{"2 × 503"},
			"more attempts of the kind have failed; they have no lines of their own":          []any{"2 × 429"},
		}, summaries)
	})
}

// askingError is a user's error that logs in its Error method: it would deadlock if the log called it while holding its lock.
type askingError struct {
	log   *failureLog
	asked *int
}

func (e askingError) Error() string {
	*e.asked++
	if !e.log.mu.TryLock() {
		return "the log has its lock"
	}
	defer e.log.mu.Unlock()
	return fmt.Sprintf("%d windows are open", len(e.log.windows))
}

// panickingError panics in its Error method.
type panickingError struct{}

func (panickingError) Error() string { panic("no text") }

func TestMethodsOfErrorsAreCalledUnderNoLockOfTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs linesBuffer
		l := newFailureLog(&logs)
		asked := 0
		for range loggedFailures + 1 {
			l.add(failed("page", "x", askingError{l, &asked}))
		}
		require.Equal(t, loggedFailures+1, asked)
		l.add(failed("page", "x", panickingError{}))
		known := failed("page", "x", askingError{l, &asked})
		known.text = "as it was when the call ended"
		l.add(known)
		require.Equal(t, loggedFailures+1, asked, "Error is called once")
		_ = logs.takeLines(t)
		l.flush()
		lines := logs.takeLines(t)
		require.Len(t, lines, 1)
		require.EqualValues(t, 3, lines[0]["failures"])
		require.ElementsMatch(t, []any{
			"1 × 1 windows are open", "1 × as it was when the call ended",
			"1 × an error of type delta.panickingError, whose methods panic: no text",
		}, lines[0]["errors"])
	})
}

// When the failure is logged, the row may be at the next attempt or a newer generation.
func TestALineOfAFailureHasTheGenerationAndAttemptThatFailed(t *testing.T) {
	t.Parallel()
	var logs linesBuffer
	l := newFailureLog(&logs)
	row := &deltatype.ResourceRow{ObjectKind: "page", ObjectID: "x", Namespace: "tenant", Generation: 4, Attempt: 2}
	l.add(failureOf(&activities.Observation{Outcome: activities.Outcome{Error: "lost"}, Generation: 4, Attempt: 1}, row))
	l.add(failureOf(&activities.Observation{Outcome: activities.Outcome{Error: "old"}, Generation: 3, Attempt: 7}, row))
	l.add(failureOf(&activities.Observation{Outcome: activities.Outcome{Error: "gone"}, Generation: 4, Attempt: 2, IsUnwritten: true}, row))
	l.add(failureOf(&activities.Observation{Outcome: activities.Outcome{Error: "no", Trace: "main.go"}, Generation: 4, Attempt: 2, IsUnwritten: true}, row))
	const superseded = "an attempt failed after its resource had gone on without it; nothing follows from it"
	lines := logs.takeLines(t)
	require.Len(t, lines, 4)
	for i, want := range []struct {
		level, msg, err     string
		generation, attempt int
	}{
		{"INFO", "an attempt failed; it is tried again", "lost", 4, 1},
		{"INFO", superseded, "old", 3, 7},
		{"INFO", superseded, "gone", 4, 2},
		{"ERROR", superseded, "no", 4, 2},
	} {
		require.Equal(t, want.level, lines[i]["level"])
		require.Equal(t, want.msg, lines[i]["msg"])
		require.Equal(t, want.err, lines[i]["error"])
		require.EqualValues(t, want.generation, lines[i]["generation"])
		require.EqualValues(t, want.attempt, lines[i]["attempt"])
	}
}

// Errors that all differ, for example by an id in their text, take bounded memory.
func TestTheErrorsThatAreCountedAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs linesBuffer
		l := newFailureLog(&logs)
		for i := range loggedFailures + maxCountedErrors {
			l.add(failed("page", "x", fmt.Errorf("odd %d", i)))
		}
		for range 4 {
			l.add(failed("page", "x", errors.New("one too many")))
			l.add(failed("page", "x", fmt.Errorf("odd %d", loggedFailures)))
		}
		require.Len(t, l.windows[failureKey{kind: "page", level: slog.LevelInfo}].byError, maxCountedErrors)
		_ = logs.takeLines(t)
		l.flush()
		lines := logs.takeLines(t)
		require.Len(t, lines, 1)
		require.EqualValues(t, maxCountedErrors+8, lines[0]["failures"], "all are counted")
		require.Equal(t, "5 × odd 10", lines[0]["errors"].([]any)[0])
	})
}
