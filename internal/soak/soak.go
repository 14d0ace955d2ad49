// Package soak sets how much the tests do that could go on for ever.
//
// Such tests put faults in at random and compare with an oracle. Their names begin with TestSoak. `make test` runs each for the few seconds
// that it names itself, `make soak` for as long as DELTA_SOAK says, such as 2m, and `make test-short` leaves them out.
package soak

import (
	"os"
	"testing"
	"time"
)

const variable = "DELTA_SOAK"

// Time returns how long the test goes on: usual, or what DELTA_SOAK says.
func Time(tb testing.TB, usual time.Duration) time.Duration {
	tb.Helper()
	Long(tb)
	given, ok := Given(tb)
	if !ok {
		return usual
	}
	return given
}

// Count returns how many of its things the test makes: usual, or many where DELTA_SOAK is set.
func Count(tb testing.TB, usual, many int) int {
	tb.Helper()
	Long(tb)
	if _, ok := Given(tb); ok {
		return many
	}
	return usual
}

// Given returns what DELTA_SOAK says, and whether it is set.
func Given(tb testing.TB) (time.Duration, bool) {
	tb.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return 0, false
	}
	given, err := time.ParseDuration(text)
	if err != nil || given <= 0 {
		tb.Fatalf("%s=%q is not a positive duration, such as 2m", variable, text)
	}
	return given, true
}

// Long marks a test that takes more than a few seconds: it is left out of `make test-short`.
func Long(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("it takes long")
	}
}

// Only marks a test that takes minutes, mostly of waiting: it runs in `make soak`, once.
func Only(tb testing.TB) {
	tb.Helper()
	if _, ok := Given(tb); !ok {
		tb.Skip("it takes minutes: `make soak` runs it")
	}
}
