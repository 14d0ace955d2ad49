package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/chariot-giving/delta/db"
)

// listingClaim bounds what a complete listing may delete: rows that were last written by a transaction that had ended
// when the listing began.
//
// A clock cannot decide that, because now() is when a transaction began: Work may begin one, create its object upstream
// after the listing was taken, and commit with an earlier time. Informs that change nothing count too, although they
// usually write nothing. So a complete listing has a claim while it runs, and informs of its kind that find the claim
// alive write their rows. If the claim is lost, such informs may have left no trace, and the pass deletes nothing.
type listingClaim struct {
	pass  *pass
	claim *claim
	// began is the database's snapshot at the beginning.
	began string
}

// errListingClaimLost makes Temporal repeat a pass.
var errListingClaimLost = errors.New("Postgres was not reached in time: nothing is deleted, because informs in between may not have been noticed")

// errListingLost makes Temporal repeat a pass.
var errListingLost = errors.New("the database no longer has what this pass has recorded, because it was restored from a backup meanwhile: nothing is deleted")

// checkWhole checks that the database still has what the pass has recorded. A process may outlive a restore of the database,
// and then the claim alone does not show it, because a renewal writes it again.
func (r *listingClaim) checkWhole(ctx context.Context) error {
	p := r.pass
	whole, err := db.New().IsListingWhole(ctx, p.activities.Pool, db.IsListingWholeParams{Claim: r.claim.id, Pass: p.in.Pass, Recorded: p.recorded})
	switch {
	case err != nil:
		return fmt.Errorf("looking whether the listing is whole: %w", err)
	case !whole:
		return errListingLost
	}
	return nil
}

// beginListingClaim makes informs of the kind, or of its shard, write their rows, and only then records which
// transactions have ended: an object informed before, without a trace, existed before the listing began.
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

// release ends that. If Postgres cannot be reached, informs go on until the claim has passed.
func (r *listingClaim) release() {
	defer r.claim.release()
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := db.New().EndPass(ctx, r.pass.activities.Pool, r.claim.id); err != nil {
		r.pass.log().Warn("the end of a complete listing could not be noted; unchanged informs write their rows until its claim has passed", "error", err)
	}
}

// claimID returns the claim's id; nil for a listing that is not complete.
func (r *listingClaim) claimID() *string {
	if r == nil {
		return nil
	}
	return &r.claim.id
}
