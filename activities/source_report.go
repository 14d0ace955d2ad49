package activities

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/db"
)

// Phases of a run of a source, in the column phase of delta_source.
const (
	// SourceRunning is that of a source that says nothing of itself.
	SourceRunning = "running"
	// SourceReading is that of one that reads all of what there is.
	SourceReading = "reading"
	// SourceFollowing is that of one that takes changes.
	SourceFollowing = "following"
)

// SourceReport describes how a source stands, as it reports it.
type SourceReport struct {
	// Phase is SourceReading or SourceFollowing, and Reason says why it is in it, if that is to be known.
	Phase, Reason string
	// CaughtUpTo is until when all that had changed there was written; zero leaves it as it was.
	CaughtUpTo time.Time
	// BehindBytes and BehindMessages are how much is before it; nil where it has not counted.
	BehindBytes, BehindMessages *int64
}

// sourceReport is a report as the next beat, or page, writes it.
type sourceReport struct {
	SourceReport
	// since is when the phase began.
	since      time.Time
	caughtUpAt *time.Time
}

// Report notes how the source stands. It costs nothing: what was reported last is written by the next page, or within a few seconds.
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

// lockWait is a page that waits for a lock, as far as the log knows.
type lockWait struct {
	page   int64     // since when it is written
	logged time.Time // when the log named who holds the lock
}

// blockersEvery is how often the log names the process that holds a lock which a page waits for.
const blockersEvery = time.Minute

// nameBlockers has the log say for whom a page waits that has not been written for long. Nothing else would: Postgres answers, and the source goes on when the
// lock is released.
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
