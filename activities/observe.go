package activities

import (
	"context"
	"time"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Observation says how a resource has changed, by an attempt or by a complete listing. It is handed on once that is written.
type Observation struct {
	// Outcome is that of the attempt. A listing that no longer has the resource leaves a VerdictDeleted, and nothing else.
	Outcome
	// IsFinalizing is true where Finalize was called, rather than Work.
	IsFinalizing bool
	// Waited is for how long the resource had been due when it was claimed.
	Waited time.Duration
	// Row makes the row as it is then.
	Row func() (*deltatype.ResourceRow, error)
}

func (a *Activities) observe(o Observation) {
	if a.Observed != nil {
		a.Observed(o)
	}
}

// observed is the observation of an attempt.
func (one *claimed) observed(row func() (*deltatype.ResourceRow, error)) Observation {
	return Observation{Outcome: one.outcome, IsFinalizing: one.worked.IsFinalizing(), Waited: one.waited, Row: row}
}

// EndedPass says what a pass of an informer came to: one try of a run, or the failure to name its shards.
type EndedPass struct {
	Kind, Shard string
	// RunID is that of the run in Temporal; empty outside of one.
	RunID string
	// Took is how long the pass took.
	Took time.Duration
	// Err is why it failed; nil if it did not.
	Err error
	InformProgress
}

// observeEnd hands on what a pass came to.
func (p *pass) observeEnd(ctx context.Context, failure error) {
	if p.activities.PassEnded == nil {
		return
	}
	if failure != nil && p.cause != nil {
		failure = p.cause
	}
	p.activities.PassEnded(EndedPass{
		Kind: p.in.Kind, Shard: p.in.Options.Shard, RunID: runID(ctx), Took: time.Since(p.startedAt), Err: failure, InformProgress: p.progress,
	})
}
