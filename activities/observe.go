package activities

import (
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
