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
	// failureWindow is the time within which failures of a kind are in masses.
	failureWindow = 10 * time.Second
	// loggedFailures is how many of a window have lines of their own. The others are counted.
	loggedFailures = 10
	// maxCountedErrors bounds the different errors that are counted, and maxErrorText what is shown of each.
	maxCountedErrors = 100
	maxErrorText     = 200
	// commonErrors is how many of them a summary has.
	commonErrors = 3
)

// failureLog logs failures: each by itself, or, where a kind fails in masses, their number and the commonest errors.
type failureLog struct {
	client *Client
	window time.Duration

	mu      sync.Mutex
	windows map[failureKey]*failureCounts
}

// failureKey is what failures are counted by.
type failureKey struct {
	kind string
	// isPass is true for passes of the kind's informer.
	isPass bool
	level  slog.Level
}

// summaryText says that failures were counted which have no lines of their own.
func (k failureKey) summaryText() string {
	if k.isPass {
		return "more passes of the kind's informer have failed; they have no lines of their own"
	}
	return "more attempts of the kind have failed; they have no lines of their own"
}

// failureCounts are those of a window.
type failureCounts struct {
	logged, counted int
	byError         map[string]int
	timer           *time.Timer
}

// levelOf is the level of a failure: something to look at is a warning, and what the program has not expected an error.
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

// errorText is the text of the error, cut. It is made under no lock, because it may have to ask the error, which may be user code.
func (f *Failure) errorText() string {
	if f.text == "" {
		return shorten.Error(f.Err, maxErrorText)
	}
	return shorten.Text(f.text, maxErrorText)
}

// countFailure takes a failure into its window, and reports whether it has a line of its own.
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

// endWindow ends a window, and logs those that it has counted.
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

// commonestErrors are the errors that were counted most, each with its number.
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

// messageOf says what has failed, and what follows.
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
