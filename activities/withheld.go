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

// whyWithheld says why a listing may not delete what it leaves out before somebody has approved it; empty where it may.
func (p *pass) whyWithheld(counted db.CountMissingRow) string {
	l := p.activities.Listing
	switch {
	case p.in.Gone && counted.Missing > 0:
		return "the controller no longer names a shard that has resources"
	case p.in.Options.Shard == "" && counted.OfShards > 0:
		// Another version of the controller may list it.
		return "a listing without shards leaves out resources of shards"
	case p.progress.Listed == 0 && counted.Missing > 1 && l.MostDeletedShare < 1:
		// MostDeleted is of a kind, or of each of its shards: without this rule, an upstream that answers empty lists while it is broken would
		// empty all that are no larger.
		return "a listing names nothing at all"
	case counted.Missing > int64(l.MostDeleted) && float64(counted.Missing) > l.MostDeletedShare*float64(counted.Total):
		return "a listing leaves out suspiciously much"
	}
	return ""
}

// withhold notes that a listing leaves out what it may not delete by itself, and reports whether it is withheld: somebody may have approved it. It stays
// visible until it is decided, or a listing is complete again.
func (p *pass) withhold(ctx context.Context, counted db.CountMissingRow, why string) (withheld bool, err error) {
	a := p.activities
	noted, err := db.New().Withhold(ctx, a.Pool, db.WithholdParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, Missing: counted.Missing, Total: counted.Total, Reason: why})
	if err != nil {
		return false, fmt.Errorf("noting that %d deletions are withheld: %w", counted.Missing, err)
	}
	decision := ""
	if noted.Decision != nil {
		decision = *noted.Decision
	}
	switch decision {
	case Approved:
		p.log().Warn(why+", which was approved: it is marked deleted",
			"missing", counted.Missing, "of", counted.Total, "approved", *noted.DecidedMissing)
		return false, nil
	case Dismissed:
		p.log().Info(why+", which was dismissed: nothing is marked deleted",
			"missing", counted.Missing, "of", counted.Total, "dismissed", *noted.DecidedMissing)
	default:
		p.log().Error(why+": nothing is marked deleted until it is approved (delta informs approve KIND)",
			"missing", counted.Missing, "of", counted.Total, "since", noted.Since.UTC().Format(time.RFC3339),
			"allowed", a.Listing.MostDeleted, "allowed_share", a.Listing.MostDeletedShare)
	}
	p.progress.Withheld = counted.Missing
	return true, p.reportWithheld(ctx)
}

// forgetWithheld ends what was withheld of the kind, or of its shard.
func (p *pass) forgetWithheld(ctx context.Context) error {
	if _, err := db.New().ForgetWithheld(ctx, p.activities.Pool, db.ForgetWithheldParams{Kind: p.in.Kind, Shard: p.in.Options.Shard}); err != nil {
		return fmt.Errorf("noting that nothing is withheld any more: %w", err)
	}
	return nil
}
