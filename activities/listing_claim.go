package activities

import (
	"context"
	"errors"

	"github.com/chariot-giving/delta/db"
)

// reach bounds what a complete listing may delete: rows whose latest word is of a transaction that had ended when the listing began.
//
// A clock cannot say that. now() is when a transaction began: Work may begin one, make its object upstream after the listing was taken, and
// commit with a time from before. Informs that change nothing are words too, although they write nothing as a rule. So a complete listing
// has a claim while it runs, and informs of its kind that find the claim alive write their mark. If the claim is lost, informs may have gone
// by without a trace, and the pass deletes nothing.
type listingClaim struct {
	pass  *pass
	claim *claim
	// began is the database's snapshot at the beginning.
	began string
}

// errReachLost has a pass repeated.
var errListingClaimLost = errors.New("Postgres was not reached in time: nothing is deleted, since informs in between may not have been noticed")

// beginListingClaim has informs of the kind, or of its shard, leave their mark, and only then notes which transactions have ended: what was informed before
// without a mark existed before the listing began.
func (p *pass) beginListingClaim(ctx context.Context, shard string) (*listingClaim, error) {
	a, kind, q := p.activities, p.in.Kind, db.New()
	r := &listingClaim{pass: p, claim: a.Claims.beginClaim(claimOwner{kind, WorkflowID(ctx)}, a.claimPeriod())}
	err := q.RenewClaims(ctx, a.Pool, db.RenewClaimsParams{Claims: []string{r.claim.id}, ClaimFor: r.claim.period})
	if err == nil {
		err = q.BeginPass(ctx, a.Pool, db.BeginPassParams{Claim: r.claim.id, Kind: kind, Shard: shard})
	}
	if err == nil {
		r.began, err = q.Snapshot(ctx, a.Pool)
	}
	if err != nil {
		r.release()
		return nil, err
	}
	return r, nil
}

// release has informs leave no mark any more. Where Postgres cannot be reached they leave some until the claim has passed.
func (r *listingClaim) release() {
	defer r.claim.release()
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := db.New().EndPass(ctx, r.pass.activities.Pool, r.claim.id); err != nil {
		r.pass.log().Warn("the end of a complete listing could not be noted; unchanged informs write their rows until its claim has passed", "error", err)
	}
}

// claimID is that of its claim; nil for a listing that is not complete.
func (r *listingClaim) claimID() *string {
	if r == nil {
		return nil
	}
	return &r.claim.id
}
