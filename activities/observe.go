package activities

import (
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// Attempted is what became of an attempt, once that is written.
type Attempted struct {
	Outcome
	// IsFinalizing is true where Finalize was called, rather than Work.
	IsFinalizing bool
	// Waited is for how long the resource had been due when it was claimed.
	Waited time.Duration
	// Row makes the row as it is then.
	Row func() (*deltatype.ResourceRow, error)
}

// observe reports an attempt whose outcome is written.
func (a *Activities) observe(one *claimed, row func() (*deltatype.ResourceRow, error)) {
	if a.Observed != nil {
		a.Observed(Attempted{Outcome: one.outcome, IsFinalizing: one.worked.IsFinalizing(), Waited: one.waited, Row: row})
	}
}

// observeUnlisted reports a resource that a listing has marked deleted.
func (a *Activities) observeUnlisted(row *db.Resource) {
	if a.Unlisted != nil {
		a.Unlisted(row.Row)
	}
}
