// Package exampletest gives the Example functions of a package real servers, so that `go test` runs them and compares their output.
//
//	func TestMain(m *testing.M) {
//		if exampletest.AreChosen() {
//			tb := exampletest.Open()
//			env := deltatest.New(tb)
//			…
//			defer tb.Close()
//		}
//		…
//	}
package exampletest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"
)

// AreChosen reports whether the flags of the test binary choose any example, so that a run of a single test starts no server for them.
func AreChosen() bool {
	if !flag.Parsed() {
		flag.Parse()
	}
	text := func(name string) string {
		if f := flag.Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	if text("test.list") != "" || text("test.fuzz") != "" {
		return false
	}
	run, err := regexp.Compile(text("test.run"))
	return err == nil && (text("test.run") == "" || run.MatchString("Example"))
}

// TB is a testing.TB for helpers that need one: examples have none. A failure panics, because an example cannot fail in any other way.
type TB struct {
	testing.TB
	ctx      context.Context //nolint:containedctx // testing.TB has it
	cancel   context.CancelFunc
	cleanups []func()
}

// Open makes a TB. Call Close when the examples have run.
func Open() *TB {
	ctx, cancel := context.WithCancel(context.Background())
	return &TB{ctx: ctx, cancel: cancel}
}

// Close runs the cleanups, the latest first.
func (t *TB) Close() {
	t.cancel()
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		cleanup := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		cleanup()
	}
}

// Name implements testing.TB.
func (t *TB) Name() string { return "Examples" }

// Helper implements testing.TB.
func (t *TB) Helper() {}

// Failed implements testing.TB.
func (t *TB) Failed() bool { return false }

// Context implements testing.TB.
func (t *TB) Context() context.Context { return t.ctx }

// Cleanup implements testing.TB.
func (t *TB) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Log implements testing.TB.
func (t *TB) Log(args ...any) { fmt.Fprintln(os.Stderr, args...) }

// Logf implements testing.TB.
func (t *TB) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Error implements testing.TB.
func (t *TB) Error(args ...any) { panic(fmt.Sprint(args...)) }

// Errorf implements testing.TB.
func (t *TB) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Fatal implements testing.TB.
func (t *TB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Fatalf implements testing.TB.
func (t *TB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// FailNow implements testing.TB.
func (t *TB) FailNow() { panic("an example's servers failed") }
