package deltatest

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// testLog writes lines to the log of a test, so that only a failing test shows its lines. It drops lines after the end of the test, because then
// testing.TB.Log panics.
type testLog struct {
	mu    sync.Mutex
	tb    testing.TB
	ended bool
}

func newTestLog(tb testing.TB) io.Writer {
	l := &testLog{tb: tb}
	tb.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true
	})
	return l
}

// Write implements io.Writer. Each call has one line.
func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.tb.Log(strings.TrimSuffix(string(line), "\n"))
	}
	return len(line), nil
}

// errorsOnly drops records below the level of errors.
type errorsOnly struct{ slog.Handler }

// Enabled implements slog.Handler.
func (errorsOnly) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

// WithAttrs implements slog.Handler.
func (h errorsOnly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return errorsOnly{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h errorsOnly) WithGroup(name string) slog.Handler {
	return errorsOnly{h.Handler.WithGroup(name)}
}
