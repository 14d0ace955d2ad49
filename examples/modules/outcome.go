package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/examples/modules/proxy"
)

// outcome is the state of a module for a reader.
type outcome string

const (
	outcomePending outcome = "pending" // nothing is known yet
	outcomeCurrent outcome = "up to date"
	outcomeBehind  outcome = "behind"
	outcomeSkipped outcome = "skipped"
	outcomeRefused outcome = "refused"
	outcomeMissing outcome = "missing"
	outcomeFailed  outcome = "failed" // the latest attempt failed
)

func (r row) outcome() outcome {
	switch {
	case r.state == deltatype.ResourceStateFailed, r.state == deltatype.ResourceStateDegraded,
		r.state == deltatype.ResourceStatePending && r.attempt > 1:
		return outcomeFailed
	case r.state == deltatype.ResourceStateDeleted:
		return outcomeMissing
	case r.synced == nil:
		return outcomePending
	}
	switch r.status {
	case statusSkipped:
		return outcomeSkipped
	case statusRefused:
		return outcomeRefused
	case statusMissing:
		return outcomeMissing
	case statusKnown:
		if r.behind != "" {
			return outcomeBehind
		}
		return outcomeCurrent
	}
	return outcomePending
}

// reason says why nothing is known of a module, or why the answer is not final.
func (r row) reason() string {
	if r.outcome() == outcomeFailed {
		return r.failure
	}
	return cmp.Or(r.reasonStored, r.failure)
}

// snapshot has the state of all modules of the go.mod at one time.
type snapshot struct {
	at   time.Time
	rows []row
}

// newSnapshot returns a snapshot of the modules that the go.mod requires, without rows that are left from before an edit.
func newSnapshot(at time.Time, required []Module, stored []row) snapshot {
	byPath := make(map[string]row, len(stored))
	for _, r := range stored {
		byPath[r.Path] = r
	}
	s := snapshot{at: at}
	for _, m := range required {
		r, ok := byPath[m.Path]
		if !ok {
			r = row{Module: m} // not informed yet
		}
		s.rows = append(s.rows, r)
	}
	return s
}

func (s snapshot) withOutcomes(outcomes ...outcome) []row {
	var rows []row
	for _, r := range s.rows {
		if slices.Contains(outcomes, r.outcome()) {
			rows = append(rows, r)
		}
	}
	return rows
}

func (s snapshot) countOutcomes(outcomes ...outcome) int { return len(s.withOutcomes(outcomes...)) }

// countSynced counts the synced modules; countSettled also those that failed or are gone.
func (s snapshot) countSynced() int {
	return s.countOutcomes(outcomeCurrent, outcomeBehind, outcomeSkipped, outcomeRefused)
}
func (s snapshot) countSettled() int { return len(s.rows) - s.countOutcomes(outcomePending) }

// formatStates counts modules by Delta's states, in the order of a lifecycle.
func (s snapshot) formatStates() string {
	counts := map[deltatype.ResourceState]int{}
	for _, r := range s.rows {
		counts[r.state]++
	}
	var parts []string
	for _, state := range deltatype.ResourceStates() {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if n := counts[""]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d not informed yet", n))
	}
	return strings.Join(parts, ", ")
}

// lastCheck returns the latest attempt.
func (s snapshot) lastCheck() (at time.Time, path string) {
	for _, r := range s.rows {
		if r.attempted != nil && r.attempted.After(at) {
			at, path = *r.attempted, r.Path
		}
	}
	return at, path
}

// formatBehind says by how many releases and how much time a version is behind the latest one; "" if it is not. The time is that between the two releases, so it
// does not grow while nothing is released.
func formatBehind(a proxy.Answer) string {
	if !a.Behind() {
		return ""
	}
	by := "new commits"
	if a.Newer > 0 {
		by = formatCount(a.Newer, "release")
	}
	if a.Current.Time.IsZero() || a.Latest.Time.IsZero() {
		return by
	}
	return by + ", " + formatAge(a.Latest.Time.Sub(a.Current.Time))
}

const (
	day   = 24 * time.Hour
	year  = 365.25 * 24 * time.Hour
	month = year / 12
)

// formatAge formats a time in the unit that a person would use.
func formatAge(d time.Duration) string {
	switch {
	case d < day:
		// The time is negative if a fix of an old version was released after the latest new one.
		return "<1 day"
	case d < 2*month:
		return formatCount(int(d/day), "day")
	case d < 2*year:
		return formatCount(int(d/month), "month")
	default:
		return formatCount(int(d/year), "year")
	}
}

func formatCount(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
