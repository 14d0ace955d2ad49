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

// outcome is where a module stands, for a reader.
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

// reason says why a module is not simply known.
func (r row) reason() string {
	if r.outcome() == outcomeFailed {
		return r.failure
	}
	return cmp.Or(r.reasonStored, r.failure)
}

// snapshot is all modules of the go.mod at one time.
type snapshot struct {
	at   time.Time
	rows []row
}

// snap makes a snapshot of what the go.mod requires; rows of anything else, left from before an edit, are not in it.
func snap(at time.Time, required []Module, stored []row) snapshot {
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

func (s snapshot) of(outcomes ...outcome) []row {
	var rows []row
	for _, r := range s.rows {
		if slices.Contains(outcomes, r.outcome()) {
			rows = append(rows, r)
		}
	}
	return rows
}

func (s snapshot) count(outcomes ...outcome) int { return len(s.of(outcomes...)) }

// synced counts the modules that were brought in line; settled also those that failed, or are gone.
func (s snapshot) synced() int {
	return s.count(outcomeCurrent, outcomeBehind, outcomeSkipped, outcomeRefused)
}
func (s snapshot) settled() int { return len(s.rows) - s.count(outcomePending) }

// states counts by Delta's states, in the order of a lifecycle.
func (s snapshot) states() string {
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

// lastCheck is the latest attempt.
func (s snapshot) lastCheck() (at time.Time, path string) {
	for _, r := range s.rows {
		if r.attempted != nil && r.attempted.After(at) {
			at, path = *r.attempted, r.Path
		}
	}
	return at, path
}

// behind says how far a version is behind the latest one: by how many releases and by how much time; nothing if it is
// not. The time is that between the two, so it does not grow while nothing happens.
func behind(a proxy.Answer) string {
	if !a.Behind() {
		return ""
	}
	by := "new commits"
	if a.Newer > 0 {
		by = plural(a.Newer, "release")
	}
	if a.Current.Time.IsZero() || a.Latest.Time.IsZero() {
		return by
	}
	return by + ", " + span(a.Latest.Time.Sub(a.Current.Time))
}

const (
	day   = 24 * time.Hour
	year  = 365.25 * 24 * time.Hour
	month = year / 12
)

// span is a time in the one unit that a person would use.
func span(d time.Duration) string {
	switch {
	case d < day:
		// Or less than nothing: a fix of an old line, released after the latest of the new one.
		return "<1 day"
	case d < 2*month:
		return plural(int(d/day), "day")
	case d < 2*year:
		return plural(int(d/month), "month")
	default:
		return plural(int(d/year), "year")
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
