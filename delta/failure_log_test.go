package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// linesOf are the lines of a log in JSON.
func linesOf(t *testing.T, logs *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for decoder := json.NewDecoder(bytes.NewReader(logs.Bytes())); decoder.More(); {
		var line map[string]any
		require.NoError(t, decoder.Decode(&line))
		all = append(all, line)
	}
	return all
}

// newFailureLog is the log of failures of a client that is not started.
func newFailureLog(logs *bytes.Buffer) *failureLog {
	c := &Client{config: Config{Logger: slog.New(slog.NewJSONHandler(logs, nil))}}
	return &failureLog{client: c, window: failureWindow}
}

// failed is a failed attempt.
func failed(kind, id string, err error) Failure {
	return Failure{Operation: OperationWork, Kind: kind, Err: err, Resource: &deltatype.ResourceRow{ObjectKind: kind, ObjectID: id, Namespace: "tenant"}}
}

func TestWhatFailsInMassesIsCountedForTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
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
		l.add(failed("user", "a", errors.New("403"))) // another kind has lines of its own
		degraded := failed("page", "z", errors.New("the last"))
		degraded.IsDegraded = true
		l.add(degraded) // so has another level
		lines := linesOf(t, &logs)
		require.Len(t, lines, 12)
		for i := range 10 {
			require.Equal(t, "an attempt failed; it is tried again", lines[i]["msg"])
			require.Equal(t, fmt.Sprintf("first-%d", i), lines[i]["object_id"])
		}
		require.Equal(t, "user", lines[10]["kind"])
		require.Equal(t, "WARN", lines[11]["level"])
		logs.Reset()

		time.Sleep(failureWindow - time.Nanosecond)
		synctest.Wait()
		require.Empty(t, linesOf(t, &logs), "the window is open")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, 10*time.Second, time.Since(began))
		lines = linesOf(t, &logs)
		require.Len(t, lines, 1, "the kinds and levels that were not in masses have no summary")
		require.Equal(t, "INFO", lines[0]["level"])
		require.Equal(t, "more attempts of the kind have failed; they have no lines of their own", lines[0]["msg"])
		require.Equal(t, "page", lines[0]["kind"])
		require.EqualValues(t, 16, lines[0]["failures"])
		require.Equal(t, "10s", lines[0]["within"])
		require.Equal(t, []any{"7 × 503", "5 × 429", "3 × gone"}, lines[0]["errors"])
		logs.Reset()

		// The next failure opens another window.
		for range 11 {
			l.add(failed("page", "again", errors.New("500")))
		}
		require.Len(t, linesOf(t, &logs), 10)
		logs.Reset()
		l.flush()
		lines = linesOf(t, &logs)
		require.Len(t, lines, 1)
		require.EqualValues(t, 1, lines[0]["failures"])
		require.Equal(t, []any{"1 × 500"}, lines[0]["errors"])
		logs.Reset()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, linesOf(t, &logs), "what was flushed is not logged again")
	})
}

// Errors that are all different, such as with an id in their text, take no more memory than some.
func TestTheErrorsThatAreCountedAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		l := newFailureLog(&logs)
		for i := range loggedFailures + maxCountedErrors {
			l.add(failed("page", "x", fmt.Errorf("odd %d", i)))
		}
		for range 4 {
			l.add(failed("page", "x", errors.New("one too many")))
			l.add(failed("page", "x", fmt.Errorf("odd %d", loggedFailures)))
		}
		require.Len(t, l.windows[failureKey{"page", slog.LevelInfo}].byError, maxCountedErrors)
		logs.Reset()
		l.flush()
		lines := linesOf(t, &logs)
		require.Len(t, lines, 1)
		require.EqualValues(t, maxCountedErrors+8, lines[0]["failures"], "all are counted")
		require.Equal(t, "5 × odd 10", lines[0]["errors"].([]any)[0])
	})
}
