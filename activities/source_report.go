package activities

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/db"
)

// Phases of a run of a source, in the column phase of delta_source.
const (
	// SourceRunning is a source that does not report its phase.
	SourceRunning = "running"
	// SourceReading is a source that reads all objects.
	SourceReading = "reading"
	// SourceFollowing is a source that follows changes.
	SourceFollowing = "following"
)

// SourceReport is the state of a source, as it reports it.
type SourceReport struct {
	// Phase is SourceReading or SourceFollowing. Reason says why, if people should know.
	Phase, Reason string
	// CaughtUpTo is the time until which all changes were written; zero leaves it unchanged.
	CaughtUpTo time.Time
	// BehindBytes and BehindMessages are how much the source still has to read; nil where it has not counted.
	BehindBytes, BehindMessages *int64
}

// sourceReport is a report for the next beat, or page, to write.
type sourceReport struct {
	SourceReport
	// since is when the phase began.
	since      time.Time
	caughtUpAt *time.Time
}

// Report sets the state of the source. It is cheap: the next page, or a beat within a few seconds, writes it.
func (f *Feed) Report(report SourceReport) {
	last := f.reported.Load()
	next := &sourceReport{SourceReport: report, since: last.since, caughtUpAt: last.caughtUpAt}
	if report.Phase != last.Phase || report.Reason != last.Reason {
		next.since = time.Now()
	}
	switch {
	case !report.CaughtUpTo.IsZero():
		next.caughtUpAt = &report.CaughtUpTo
	case next.caughtUpAt == nil: // it is behind since it first said something
		next.caughtUpAt = &next.since
	}
	f.reported.Store(next)
}

// lockWait has the latest log line about a page that waits for a lock.
type lockWait struct {
	page   int64     // the time since which it is being written
	logged time.Time // when the log named the holder of the lock
}

// blockersEvery is how often the log names the process with the lock that a page waits for.
const blockersEvery = time.Minute

// nameBlockers logs which process a page waits for if it has not been written for long. Nothing else would show it,
// because Postgres answers, and the source goes on when the lock is released.
func (f *Feed) nameBlockers(ctx context.Context, waits *lockWait) {
	page := f.writing.Load()
	if page == 0 || time.Since(time.Unix(0, page)) < SourceSilence || (waits.page == page && time.Since(waits.logged) < blockersEvery) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	writers, err := db.New().FindSourceWriters(ctx, f.activities.Pool)
	if err != nil || f.writing.Load() != page {
		return // renew finds out what is wrong, and the next beat asks again
	}
	for _, w := range writers {
		if w.Kind != f.in.Kind || w.Name != f.in.Name || !w.IsWaiting {
			continue
		}
		*waits = lockWait{page, time.Now()}
		f.activities.Logger.Warn("a page of a source waits for a lock; it is written when that is released", "kind", f.in.Kind, "source", f.in.Name,
			"for", time.Since(time.Unix(0, page)).Round(time.Second), "held_by_pid", w.Blocker.PID, "user", w.Blocker.User, "application", w.Blocker.Application,
			"state", w.Blocker.State, "open_for", w.Blocker.Age.Round(time.Second))
	}
}
