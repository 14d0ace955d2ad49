package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// sourceSilentAfter is after what time without a sign of life a source counts as not running: its client says every two seconds that it goes on, and another
// one takes over within a heartbeat's timeout.
const sourceSilentAfter = time.Minute

// SourceStatus is how a [Source] stands.
type SourceStatus struct {
	// Kind is the kind that it feeds, Name its own.
	Kind, Name string
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
	rows, err := db.New().ListSources(ctx, c.pool, sourceSilentAfter)
	if err != nil {
		return nil, fmt.Errorf("delta: sources: %w", schemaError(err))
	}
	all := make([]SourceStatus, len(rows))
	for i := range rows {
		r := &rows[i].Source
		all[i] = SourceStatus{
			Kind: r.Kind, Name: r.Name, Runner: r.Runner, StartedAt: r.StartedAt.UTC(), SeenAt: r.SeenAt.UTC(), WrittenAt: db.UTC(r.WrittenAt),
			Failures: int(r.Failures), FailedAt: db.UTC(r.FailedAt), IsSilent: rows[i].Silent,
		}
		if r.Error != nil {
			all[i].Error = *r.Error
		}
	}
	return all, nil
}
