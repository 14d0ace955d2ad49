package delta

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// failureWindow is the time within which repeated failures of a kind are counted.
	failureWindow = 10 * time.Second
	// loggedFailures is how many failures of a window have their own lines. The others are counted.
	loggedFailures = 10
	// maxCountedErrors bounds the distinct errors that are counted; maxErrorText bounds the text of each.
	maxCountedErrors = 100
	maxErrorText     = 200
	// commonErrors is how many of them a summary has.
	commonErrors = 3
)

// failureLog logs each failure, or, if a kind has very many, their number and the most common errors.
type failureLog struct {
	client *Client
	window time.Duration

	mu      sync.Mutex
	windows map[failureKey]*failureCounts
}

// failureKey is the key by which failures are counted.
type failureKey struct {
	kind string
	// isPass is set for passes of the kind's informer.
	isPass bool
	level  slog.Level
}

// summaryText is the message for failures that were counted.
func (k failureKey) summaryText() string {
	if k.isPass {
		return "more passes of the kind's informer have failed; they have no lines of their own"
	}
	return "more attempts of the kind have failed; they have no lines of their own"
}

// failureCounts are the counts of a window.
type failureCounts struct {
	logged, counted int
	byError         map[string]int
	timer           *time.Timer
}

// levelOf returns the level of a failure: a warning if somebody should look at it, and an error if the program did not
// expect it.
func levelOf(f Failure) slog.Level {
	switch {
	case f.IsPanic:
		return slog.LevelError
	case f.IsSuperseded:
		return slog.LevelInfo
	case f.IsDegraded, f.Operation == OperationFinalize, f.Operation == OperationList, f.Operation == OperationSource:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (l *failureLog) add(f Failure) {
	key := failureKey{f.Kind, f.Operation == OperationList, levelOf(f)}
	if !l.client.config.Logger.Enabled(context.Background(), key.level) {
		return
	}
	f.text = f.errorText()
	if l.countFailure(key, f) {
		l.logFailure(key.level, f)
	}
}

// errorText returns the shortened text of the error. It is called without a lock, because it may call methods of the error,
// which may be user code.
func (f *Failure) errorText() string {
	if f.text == "" {
		return shorten.Error(f.Err, maxErrorText)
	}
	return shorten.Text(f.text, maxErrorText)
}

// countFailure counts a failure in its window, and reports whether it gets its own line.
func (l *failureLog) countFailure(key failureKey, f Failure) (ownLine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.windows[key]
	if w == nil {
		w = &failureCounts{byError: map[string]int{}}
		if l.windows == nil {
			l.windows = map[failureKey]*failureCounts{}
		}
		l.windows[key] = w
		w.timer = time.AfterFunc(l.window, func() { l.endWindow(key, w) })
	}
	if w.logged < loggedFailures {
		w.logged++
		return true
	}
	w.counted++
	if _, known := w.byError[f.text]; known || len(w.byError) < maxCountedErrors {
		w.byError[f.text]++
	}
	return false
}

// endWindow ends a window, and logs its counts.
func (l *failureLog) endWindow(key failureKey, w *failureCounts) {
	l.mu.Lock()
	if l.windows[key] == w {
		delete(l.windows, key)
	}
	counted := w.counted
	w.counted = 0
	w.timer.Stop()
	common := commonestErrors(w.byError)
	l.mu.Unlock()
	if counted > 0 {
		l.client.config.Logger.Log(context.Background(), key.level, key.summaryText(), "kind", key.kind, "failures", counted, "within", l.window.String(), "errors", common)
	}
}

// commonestErrors returns the most frequent errors, each with its number.
func commonestErrors(byError map[string]int) []string {
	texts := slices.SortedFunc(maps.Keys(byError), func(a, b string) int { return cmp.Or(byError[b]-byError[a], cmp.Compare(a, b)) })
	texts = texts[:min(len(texts), commonErrors)]
	for i, text := range texts {
		texts[i] = fmt.Sprintf("%d × %s", byError[text], text)
	}
	return texts
}

// flush ends all windows.
func (l *failureLog) flush() {
	l.mu.Lock()
	open := maps.Clone(l.windows)
	l.mu.Unlock()
	for key, w := range open {
		l.endWindow(key, w)
	}
}

// logFailure logs one failure.
func (l *failureLog) logFailure(level slog.Level, f Failure) {
	var fields []any
	if f.pass != nil {
		fields = f.pass.LogFields()
	}
	if f.Resource != nil {
		fields = append(l.client.logFields(f.attemptedRow()), "max_attempts", f.Resource.MaxAttempts)
		if f.Resource.DueAt != nil {
			fields = append(fields, "due_at", *f.Resource.DueAt)
		}
	}
	fields = append(fields, "error", f.text)
	if f.IsPanic {
		fields = append(fields, "stack", f.Stack)
	}
	l.client.config.Logger.Log(context.Background(), level, messageOf(f), fields...)
}

// messageOf describes what has failed, and what follows.
func messageOf(f Failure) string {
	switch {
	case f.IsSuperseded:
		return "an attempt failed after its resource had gone on without it; nothing follows from it"
	case f.Operation == OperationList:
		return "a pass of the informer failed; its cursor stays, and nothing is marked deleted"
	case f.Operation == OperationSource:
		return "a source of the kind failed; it is run again, and nothing of the kind is taken from it meanwhile"
	case f.Operation == OperationFinalize:
		return "Finalize failed; it is tried again"
	case f.IsDegraded:
		return "the last attempt failed: the resource is degraded"
	case f.IsPanic:
		return "Work panicked; it is tried again"
	}
	return "an attempt failed; it is tried again"
}
