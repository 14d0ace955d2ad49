package activities

import (
	"context"

	"github.com/chariot-giving/delta/db"
)

// isGoingOn reports whether the call has not returned yet.
func (o *Outcome) isGoingOn() bool {
	if o.returned == nil {
		return false
	}
	select {
	case <-o.returned:
		return false
	default:
		return true
	}
}

// closeKept closes the claims that outcomes have left open, when their calls of Work return. Call it after the outcomes
// were written, because a closed claim would refuse them.
func (e *execution) closeKept(written []*claimed) {
	byCall := map[<-chan struct{}][]*claimed{}
	for _, one := range written {
		if one.kept {
			byCall[one.outcome.returned] = append(byCall[one.outcome.returned], one)
		}
	}
	for returned, kept := range byCall {
		e.claim.retain()
		go func() {
			defer e.claim.release()
			<-returned
			e.closeClaims(kept)
		}()
	}
}

// closeClaims releases resources whose outcome was written before their call of Work returned. It tries locked
// rows again.
func (e *execution) closeClaims(kept []*claimed) {
	ids := make([]int64, len(kept))
	for i, one := range kept {
		ids[i] = one.worked.ID
	}
	ctx, cancel := e.untilAbandoned(context.WithoutCancel(e.writes))
	defer cancel()
	for pauses := newLockedPauses(); ; {
		err := retryTransient(ctx, writeTries, func(ctx context.Context) error {
			if _, err := db.New().CloseClaims(ctx, db.Planned(e.Pool, len(ids)), db.CloseClaimsParams{Ids: ids, Claim: e.claim.id}); err != nil {
				return err
			}
			open, err := db.New().OpenClaims(ctx, e.Pool, db.OpenClaimsParams{Ids: ids, WholeKind: true})
			if err != nil {
				return err
			}
			ids = ids[:0]
			for _, other := range open {
				if other.Claim != nil && *other.Claim == e.claim.id {
					ids = append(ids, other.ID)
				}
			}
			return nil
		})
		if err == nil && len(ids) == 0 {
			for _, one := range kept {
				one.kept = false
			}
			e.wakeKeys(kept)
			e.dispatchSoon()
			return
		}
		if !sleep(ctx, pauses.Delay()) {
			return // the claim passes
		}
	}
}
