package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	passTick   = 200 * time.Millisecond
	followTick = time.Second
	// maxChange is the width of a line about a change, without the time before it.
	maxChange = maxWidth - len(time.TimeOnly) - len("  ")
)

// viewer shows the work of a keeper.
type viewer struct {
	keeper  *keeper
	show    *screen
	proxies string
}

// firstPass shows progress until all modules have settled, and then the report.
func (v *viewer) firstPass(ctx context.Context) (snapshot, error) {
	tick := time.NewTicker(passTick)
	defer tick.Stop()
	var began time.Time
	for {
		s, err := v.keeper.readSnapshot(ctx)
		if err != nil {
			return s, err
		}
		if at, _ := s.lastCheck(); began.IsZero() && !at.IsZero() {
			began = time.Now()
		}
		v.show.setLive(progressLine(s, began))
		if s.countSettled() == len(s.rows) {
			v.show.setLive("")
			v.writeReport(s)
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-tick.C:
		}
	}
}

// followChanges shows changes until ctx ends.
func (v *viewer) followChanges(ctx context.Context, last snapshot) error {
	tick := time.NewTicker(followTick)
	defer tick.Stop()
	troubled := last.countOutcomes(outcomeFailed) > 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		s, err := v.keeper.readSnapshot(ctx)
		if err != nil {
			// The go.mod may be in the middle of an edit, or the database restarting, so go on.
			if ctx.Err() == nil && v.show.width != nil {
				v.show.setLive(indent + err.Error())
			}
			continue
		}
		for _, line := range describeChanges(last, s) {
			v.show.printf("%s  %s\n", s.at.Format(time.TimeOnly), line)
		}
		troubled = troubled || s.countOutcomes(outcomeFailed) > 0
		if troubled && s.countOutcomes(outcomeFailed, outcomePending) == 0 {
			troubled = false
			v.show.printf("\n")
			v.writeReport(s)
			v.show.printf("\n")
		}
		if v.show.width != nil {
			v.show.setLive(restingLine(s, v.keeper.controller.checks.Load()))
		}
		last = s
	}
}

func (v *viewer) writeReport(s snapshot) {
	var b bytes.Buffer
	writeReport(&b, v.keeper.project.file, v.proxies, s)
	_, _ = v.show.Write(b.Bytes())
}

// describeChanges returns a line for each notable change between two snapshots.
func describeChanges(before, after snapshot) []string {
	byPath := make(map[string]row, len(before.rows))
	for _, r := range before.rows {
		byPath[r.Path] = r
	}
	var failed, recovered, refused, missing, lines []string
	for _, now := range after.rows {
		was, known := byPath[now.Path]
		delete(byPath, now.Path)
		wasFailed, isFailed := was.outcome() == outcomeFailed, now.outcome() == outcomeFailed
		switch {
		case !known:
			lines = append(lines, fmt.Sprintf("%s %s is required now", now.Path, shortVersion(now.Version)))
		case was.Version != now.Version:
			lines = append(lines, fmt.Sprintf("%s went from %s to %s in the go.mod", now.Path, shortVersion(was.Version), shortVersion(now.Version)))
		case was.latest != "" && now.latest != "" && was.latest != now.latest:
			lines = append(lines, fmt.Sprintf("%s has a new latest version: %s, it was %s", now.Path, shortVersion(now.latest), shortVersion(was.latest)))
		}
		switch {
		case isFailed && !wasFailed:
			failed = append(failed, now.Path)
		case wasFailed && now.outcome() == outcomeMissing:
			missing = append(missing, now.Path)
		case wasFailed && now.outcome() == outcomeRefused:
			refused = append(refused, now.Path)
		case wasFailed && !isFailed && now.outcome() != outcomePending:
			recovered = append(recovered, now.Path)
		}
	}
	for _, r := range before.rows {
		if _, gone := byPath[r.Path]; gone {
			lines = append(lines, r.Path+" is not required any more")
		}
	}
	for _, group := range []struct {
		what  string
		paths []string
	}{{"failed", failed}, {"recovered", recovered}, {"refused", refused}, {"missing", missing}} {
		if len(group.paths) > 0 {
			lines = append(lines, group.what+": "+someOf(group.paths, maxChange-len(group.what)-len(": ")))
		}
	}
	return lines
}

// someOf names as many paths as fit into a width, at least one, and counts the others.
func someOf(paths []string, width int) string {
	for named := len(paths); ; named-- {
		text := strings.Join(paths[:named], ", ")
		if others := len(paths) - named; others > 0 {
			text += fmt.Sprintf(" and %d more", others)
		}
		if named <= 1 || utf8.RuneCountInString(text) <= width {
			return text
		}
	}
}
