package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// Decisions about withheld deletions.
const (
	// Approved makes the next pass delete the resources.
	Approved = "approved"
	// Dismissed keeps them, without another warning.
	Dismissed = "dismissed"
)

// shardIsGone is the reason for withholding the resources of a shard that is gone.
const shardIsGone = "the controller no longer names a shard that has resources"

// recountGone is how long the count of a gone shard's resources is taken for granted. Its passes list nothing and come
// as often as those of other shards, perhaps for weeks, and each count reads all of the shard.
const recountGone = time.Hour

// whyWithheld returns why a listing may not delete the missing resources before an operator approves; empty where it
// may.
func (p *pass) whyWithheld(m missing) string {
	l := p.activities.Listing
	switch {
	case p.in.Gone && m.missing > 0:
		return shardIsGone
	case p.in.Options.Shard == "" && m.ofShards > 0:
		// Another version of the controller may list those shards.
		return "a listing without shards leaves out resources of shards"
	case p.progress.Listed == 0 && m.missing > 1 && l.MostDeletedShare < 1:
		// MostDeleted is for a kind, or for each of its shards. Without this rule, a broken upstream that answers with empty lists would
		// empty all kinds and shards that are no larger.
		return "a listing names nothing at all"
	case m.missing > int64(l.MostDeleted) && float64(m.missing) > l.MostDeletedShare*float64(m.total):
		return "a listing leaves out suspiciously much"
	}
	return ""
}

// withholdDeletions notes that a listing leaves out more than it may delete, and reports whether the deletion is
// withheld, because an operator may have approved it. The note stays visible until it is decided, or a listing is
// complete again.
func (p *pass) withholdDeletions(ctx context.Context, m missing, why string) (withheld bool, err error) {
	a := p.activities
	noted, err := db.New().Withhold(ctx, a.Pool, db.WithholdParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, Missing: m.missing, Total: m.total, Reason: why})
	if err != nil {
		return false, fmt.Errorf("noting that %d deletions are withheld: %w", m.missing, err)
	}
	if noted.Decision != nil && *noted.Decision == Approved {
		p.log().Warn(why+", which was approved: it is marked deleted",
			"missing", m.missing, "of", m.total, "approved", *noted.DecidedMissing)
		return false, nil
	}
	p.logWithheld(noted)
	p.progress.Withheld = m.missing
	return true, p.reportWithheld(ctx, m.first)
}

// awaitsDecision reports whether the pass is of a gone shard with resources that a pass within recountGone has counted
// and withheld. After an approval they are counted again, because it covers only that many.
func (p *pass) awaitsDecision(ctx context.Context) (bool, error) {
	if !p.in.Gone {
		return false, nil
	}
	noted, err := db.New().LatelyWithheld(ctx, p.activities.Pool, db.LatelyWithheldParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, Reason: shardIsGone, Within: recountGone})
	if isNoRows(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for what is withheld: %w", err)
	}
	if err := p.reportWithheld(ctx, ""); err != nil || len(p.progress.Pass.Withheld) == 0 {
		return false, err
	}
	p.logWithheld(noted)
	p.progress.Withheld = noted.Missing
	return true, nil
}

func (p *pass) logWithheld(w db.Withheld) {
	if w.Decision != nil {
		p.log().Info(w.Reason+", which was dismissed: nothing is marked deleted",
			"missing", w.Missing, "of", w.Total, "dismissed", *w.DecidedMissing)
		return
	}
	p.log().Error(w.Reason+": nothing is marked deleted until it is approved (delta informs approve KIND)",
		"missing", w.Missing, "of", w.Total, "since", w.Since.UTC().Format(time.RFC3339),
		"allowed", p.activities.Listing.MostDeleted, "allowed_share", p.activities.Listing.MostDeletedShare)
}

// forgetWithheld ends what was withheld for the kind, or for its shard.
func (p *pass) forgetWithheld(ctx context.Context) error {
	if _, err := db.New().ForgetWithheld(ctx, p.activities.Pool, db.ForgetWithheldParams{Kind: p.in.Kind, Shard: p.in.Options.Shard}); err != nil {
		return fmt.Errorf("noting that nothing is withheld any more: %w", err)
	}
	return nil
}
