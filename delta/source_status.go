package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// sourceSilentAfter is after what time without a sign of life a source counts as not running: its client says every two seconds that it goes on, and another
// one takes over within a heartbeat's timeout.
const sourceSilentAfter = time.Minute

// SourcePhase is what a [Source] does.
type SourcePhase string

// The phases, of which a source is in the first that applies.
const (
	// SourceWaiting is that of one whose page waits for a lock in Postgres: SourceStatus.HeldBy holds it.
	SourceWaiting SourcePhase = "waiting"
	// SourceSilent is that of one of which nothing has been heard for a minute: no client that has it runs, or none reaches Postgres.
	SourceSilent SourcePhase = "silent"
	// SourceFailed is that of one whose latest run has failed, and that is run again, or runs again since a moment ago.
	SourceFailed SourcePhase = "failed"
	// SourceReading is that of one that reads all of what there is, such as a table at first, or after changes were lost.
	SourceReading SourcePhase = activities.SourceReading
	// SourceFollowing is that of one that takes changes.
	SourceFollowing SourcePhase = activities.SourceFollowing
	// SourceRunning is that of one that runs, and says no more of itself ([Feed.Report]).
	SourceRunning SourcePhase = activities.SourceRunning
)

// sourcePhases are all, for metrics.
var sourcePhases = []SourcePhase{SourceWaiting, SourceSilent, SourceFailed, SourceReading, SourceFollowing, SourceRunning}

// SourceStatus is how a [Source] stands.
type SourceStatus struct {
	// Kind is the kind that it feeds, Name its own.
	Kind, Name string
	// Phase is what it does. Since is when it began to read, or to follow, and Reason says why, where it says so itself.
	Phase  SourcePhase
	Since  time.Time
	Reason string
	// Lag is for how long changes have not been written, by the clocks of both databases and to within ten seconds: it grows while the source is behind, and
	// while it does not run, whether anything has changed or not. Nil for a source that does not say.
	Lag *time.Duration
	// BehindBytes is how much of the log of a table's database, and BehindMessages how many messages, were before it when it last counted; nil where it does not.
	BehindBytes, BehindMessages *int64
	// HeldBy is the transaction that it waits for; nil where it waits for none, or this role may not see that.
	HeldBy *OpenTransaction
	// Runner is the process that runs it, or did last, as PID@HOST; StartedAt is when that began, and SeenAt when it last said that it goes on.
	Runner            string
	StartedAt, SeenAt time.Time
	// WrittenAt is when the latest page was written; nil before one.
	WrittenAt *time.Time
	// Failures is how many runs in a row have failed, FailedAt when the latest did; 0 where the latest has lasted for a while, and nil where none ever did.
	Failures int
	FailedAt *time.Time
	// Error is why the latest run failed; empty where another one has lasted for a while since.
	Error string
	// IsSilent reports whether nothing has been heard of it for a minute: no client that has it runs, or none reaches Postgres.
	IsSilent bool
}

// Sources says how each source stands that was ever run, by kind and name. One that is no longer in any program is there until its row is removed from
// delta_source.
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

// findWaiting finds out which of the sources that have not been heard of for a while wait for a lock: while one writes a page, its row is locked.
func findWaiting(ctx context.Context, conn db.DBTX, all []SourceStatus) error {
	writers, err := db.New().FindSourceWriters(ctx, conn)
	if err != nil {
		return fmt.Errorf("asking who sources wait for: %w", err)
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
				s.Phase = SourceRunning // it writes a page for long
			}
		}
	}
	return nil
}
