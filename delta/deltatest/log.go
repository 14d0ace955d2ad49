package deltatest

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// testLog writes lines to the log of a test, so that they are seen with the test that fails and with no other. What comes after the end of the
// test is dropped, because a test that has ended panics when it is written to.
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

// Write implements io.Writer. It is called with one line.
func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.tb.Log(strings.TrimSuffix(string(line), "\n"))
	}
	return len(line), nil
}

// errorsOnly drops what is below level error.
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
