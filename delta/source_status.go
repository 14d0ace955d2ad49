package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// sourceSilentAfter is the time without a heartbeat after which a source counts as not running. Its client sends one every
// two seconds, and another client takes over within a heartbeat's timeout.
const sourceSilentAfter = time.Minute

// SourcePhase is the current activity of a [Source].
type SourcePhase string

// The phases. A source is in the first one that applies.
const (
	// SourceWaiting: its page waits for a lock in Postgres, which SourceStatus.HeldBy holds.
	SourceWaiting SourcePhase = "waiting"
	// SourceSilent: it has sent no heartbeat for a minute, because no client that has it runs, or none reaches Postgres.
	SourceSilent SourcePhase = "silent"
	// SourceFailed: its latest run has failed, and it waits to be run again, or runs again since a moment ago.
	SourceFailed SourcePhase = "failed"
	// SourceReading: it reads all objects, such as a table at first, or after changes were lost.
	SourceReading SourcePhase = activities.SourceReading
	// SourceFollowing: it follows changes.
	SourceFollowing SourcePhase = activities.SourceFollowing
	// SourceRunning: it runs, and reports no more ([Feed.Report]).
	SourceRunning SourcePhase = activities.SourceRunning
)

// sourcePhases has all phases, for metrics.
var sourcePhases = []SourcePhase{SourceWaiting, SourceSilent, SourceFailed, SourceReading, SourceFollowing, SourceRunning}

// SourceStatus is the status of a [Source].
type SourceStatus struct {
	// Kind is the kind that it feeds, Name its own.
	Kind, Name string
	// Phase is its current activity. Since is when it began to read, or to follow. Reason is why, if the source reports it.
	Phase  SourcePhase
	Since  time.Time
	Reason string
	// Lag is how long changes have not been written, by the clocks of both databases and to within ten seconds. It grows
	// while the source is behind, and while it does not run, even if nothing has changed. Nil if the source does not report
	// it.
	Lag *time.Duration
	// BehindBytes is how much of the log of a table's database, and BehindMessages how many messages, were still to be read
	// at its latest count; nil if it does not count them.
	BehindBytes, BehindMessages *int64
	// HeldBy is the transaction for which it waits; nil if there is none, or this role may not see it.
	HeldBy *OpenTransaction
	// Runner is the process that runs it, or did last, as PID@HOST. StartedAt is when that began, SeenAt when its latest
	// heartbeat came.
	Runner            string
	StartedAt, SeenAt time.Time
	// WrittenAt is when the latest page was written; nil before one.
	WrittenAt *time.Time
	// Failures is how many runs in a row have failed; 0 once a run has lasted for a while. FailedAt is when the latest
	// failed; nil if none ever did.
	Failures int
	FailedAt *time.Time
	// Error is why the latest run failed; empty once another run has lasted for a while.
	Error string
	// IsSilent reports whether it has sent no heartbeat for a minute: no client that has it runs, or none reaches Postgres.
	IsSilent bool
}

// Sources returns the status of each source that was ever run, by kind and name. A source that no program has any more
// stays until its row is removed from delta_source.
func (c *Client) Sources(ctx context.Context) ([]SourceStatus, error) {
	all, err := listSources(ctx, c.pool)
	if err != nil {
		return nil, fmt.Errorf("delta: sources: %w", schemaError(err))
	}
	return all, nil
}

func listSources(ctx context.Context, conn db.DBTX) ([]SourceStatus, error) {
	rows, err := db.New().ListSources(ctx, conn, db.ListSourcesParams{SilentAfter: sourceSilentAfter, QuietAfter: activities.SourceSilence})
	if err != nil {
		return nil, err
	}
	all, isQuiet := make([]SourceStatus, len(rows)), false
	for i := range rows {
		r := &rows[i].Source
		s := &all[i]
		*s = SourceStatus{
			Kind: r.Kind, Name: r.Name, Phase: SourcePhase(r.Phase), Since: r.PhaseAt.UTC(), Reason: r.Reason, BehindBytes: r.BehindBytes, BehindMessages: r.BehindMessages,
			Runner: r.Runner, StartedAt: r.StartedAt.UTC(), SeenAt: r.SeenAt.UTC(), WrittenAt: db.UTC(r.WrittenAt),
			Failures: int(r.Failures), FailedAt: db.UTC(r.FailedAt), IsSilent: rows[i].Silent,
		}
		if r.CaughtUpAt != nil {
			s.Lag = &rows[i].Lag
		}
		if r.Error != nil {
			s.Error, s.Phase = *r.Error, SourceFailed
		}
		if s.IsSilent {
			s.Phase = SourceSilent
		}
		isQuiet = isQuiet || rows[i].Quiet
	}
	if !isQuiet {
		return all, nil
	}
	return all, findWaiting(ctx, conn, all)
}

// findWaiting finds the silent sources that wait for a lock: while a source writes a page, its row is locked.
func findWaiting(ctx context.Context, conn db.DBTX, all []SourceStatus) error {
	writers, err := db.New().FindSourceWriters(ctx, conn)
	if err != nil {
		return fmt.Errorf("finding the transactions that sources wait for: %w", err)
	}
	for i := range all {
		s := &all[i]
		for _, w := range writers {
			if w.Kind != s.Kind || w.Name != s.Name {
				continue
			}
			s.IsSilent = false
			if w.IsWaiting {
				held := OpenTransaction(w.Blocker)
				s.Phase, s.HeldBy = SourceWaiting, &held
			} else if s.Phase == SourceSilent {
				s.Phase = SourceRunning // writing its page takes long
			}
		}
	}
	return nil
}
