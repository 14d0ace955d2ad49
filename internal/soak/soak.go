// Package soak sets the duration of tests that could go on for ever.
//
// Such tests inject faults at random and compare with an oracle. Their names begin with TestSoak. `make test` runs each for its usual few seconds,
// `make soak` for the duration in DELTA_SOAK, such as 2m, and `make test-short` leaves them out.
package soak

import (
	"os"
	"testing"
	"time"
)

const (
	variable = "DELTA_SOAK"
	all      = "DELTA_TEST_ALL"
)

// Time returns the duration of the test: DELTA_SOAK, or usual if it is not set.
func Time(tb testing.TB, usual time.Duration) time.Duration {
	tb.Helper()
	Long(tb)
	given, ok := Given(tb)
	if !ok {
		return usual
	}
	return given
}

// Count returns many if DELTA_SOAK is set, otherwise usual.
func Count(tb testing.TB, usual, many int) int {
	tb.Helper()
	Long(tb)
	if _, ok := Given(tb); ok {
		return many
	}
	return usual
}

// Given returns DELTA_SOAK, and whether it is set.
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

// Long skips a test of more than a few seconds in `make test-short`.
func Long(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("it takes long")
	}
}

// IsWhole reports whether a test tries all its cases, as it does at night (ALL=1 of the Makefile) and in `make soak`. A push tries one of those that cost
// much and differ little.
func IsWhole() bool { return os.Getenv(all) != "" || os.Getenv(variable) != "" }

// Rare skips a case that only a whole run tries. A push tries another case of the same rule.
func Rare(tb testing.TB) {
	tb.Helper()
	if !IsWhole() {
		tb.Skip("another case of this test runs: `make test ALL=1` runs both")
	}
}

// Only skips a test that takes minutes, mostly waiting, except in `make soak`, which runs it once.
func Only(tb testing.TB) {
	tb.Helper()
	if _, ok := Given(tb); !ok {
		tb.Skip("it takes minutes: `make soak` runs it")
	}
}
