package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// Decisions of what was withheld.
const (
	// Approved has the next pass delete it.
	Approved = "approved"
	// Dismissed keeps it, and is silent of it.
	Dismissed = "dismissed"
)

// withhold notes that a listing leaves out suspiciously much, and reports whether it is withheld: somebody may have approved it. It stays
// visible until it is decided, or a listing is complete again.
func (p *pass) withhold(ctx context.Context, counted db.CountMissingRow) (withheld bool, err error) {
	a := p.activities
	noted, err := db.New().Withhold(ctx, a.Pool, db.WithholdParams{Kind: p.in.Kind, Missing: counted.Missing, Total: counted.Total})
	if err != nil {
		return false, fmt.Errorf("noting that %d deletions are withheld: %w", counted.Missing, err)
	}
	decision := ""
	if noted.Decision != nil {
		decision = *noted.Decision
	}
	switch decision {
	case Approved:
		a.Logger.Warn("a listing leaves out suspiciously much, which was approved: it is marked deleted",
			"kind", p.in.Kind, "missing", counted.Missing, "of", counted.Total, "approved", *noted.DecidedMissing)
		return false, nil
	case Dismissed:
		a.Logger.Info("a listing leaves out suspiciously much, which was dismissed: nothing is marked deleted",
			"kind", p.in.Kind, "missing", counted.Missing, "of", counted.Total, "dismissed", *noted.DecidedMissing)
	default:
		a.Logger.Error("a listing leaves out suspiciously much: nothing is marked deleted until it is approved (delta informs approve KIND)",
			"kind", p.in.Kind, "missing", counted.Missing, "of", counted.Total, "since", noted.Since.UTC().Format(time.RFC3339),
			"allowed", a.Listing.MostDeleted, "allowed_share", a.Listing.MostDeletedShare)
	}
	p.progress.Withheld = counted.Missing
	return true, nil
}

// forgetWithheld ends what was withheld of the kind.
func (p *pass) forgetWithheld(ctx context.Context) error {
	if err := db.New().ForgetWithheld(ctx, p.activities.Pool, p.in.Kind); err != nil {
		return fmt.Errorf("noting that nothing is withheld any more: %w", err)
	}
	return nil
}
