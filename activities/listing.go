package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// deletePage is how many resources one statement checks, to mark those deleted that were not listed.
	deletePage = 1000
	// ListingsKept is the age at which the notes of a pass are of no use any more: nothing of them was written or
	// awaited for as long.
	ListingsKept = 7 * 24 * time.Hour
)

func objectIDs(page []deltatype.ObjectInformParams) []string {
	all := make([]string, len(page))
	for i, p := range page {
		all[i] = p.ResourceID
	}
	return all
}

// recordListed records the page's objects as listed.
func (p *pass) recordListed(ctx context.Context) error {
	recorded, err := db.New().RecordListed(ctx, p.activities.Pool, db.RecordListedParams{Pass: p.in.Pass, ObjectIds: objectIDs(p.page)})
	if err != nil {
		return fmt.Errorf("recording a page of %d: %w", len(p.page), err)
	}
	p.recorded += recorded
	return nil
}

// noteListed notes degraded and deleted resources as listed, so that they are kept.
func (p *pass) noteListed(ctx context.Context, results []*deltatype.ObjectInformResult) error {
	var stay []int64
	for _, r := range results {
		if r.Refused == nil && (r.Resource.State == deltatype.ResourceStateDegraded || r.Resource.State == deltatype.ResourceStateDeleted) {
			stay = append(stay, r.Resource.ID)
		}
	}
	return p.noteStaying(ctx, stay)
}

// noteRefusedListed does the same for resources with refused objects, because they are listed too.
func (p *pass) noteRefusedListed(ctx context.Context, objectIDs []string) error {
	stay, err := db.New().StayingResources(ctx, db.Planned(p.activities.Pool, len(objectIDs)), db.StayingResourcesParams{Kind: p.in.Kind, ObjectIds: objectIDs})
	if err != nil {
		return fmt.Errorf("looking for degraded or deleted resources among %d refused objects: %w", len(objectIDs), err)
	}
	return p.noteStaying(ctx, stay)
}

func (p *pass) noteStaying(ctx context.Context, stay []int64) error {
	if len(stay) == 0 {
		return nil
	}
	rest := p.activities.Retention
	err := db.New().NoteListed(ctx, db.Planned(p.activities.Pool, len(stay)), db.NoteListedParams{
		Ids: stay, DefaultDegradedRetention: rest.DegradedRetention, DefaultDeletedRetention: rest.DeletedRetention,
	})
	if err != nil {
		return fmt.Errorf("noting that %d degraded or deleted resources are listed: %w", len(stay), err)
	}
	return nil
}

// wakeUnlisted makes a dispatcher remove resources that were deleted explicitly and kept until a complete listing left
// them out. It may miss a row if its retention ends at this moment; the next complete listing finds it.
func (a *Activities) wakeUnlisted(ctx context.Context, kind, shard string) error {
	woken, err := db.WakeUnlisted(ctx, a.Pool, kind, shard, a.Retention.DeletedRetention)
	return a.dispatchWoken(kind, woken, err)
}

// wakeUnlistedBeside does the same for rows that are in none of the shards that the controller names. No pass lists
// them, and all of the shards together may leave them out.
func (a *Activities) wakeUnlistedBeside(ctx context.Context, kind string, shards []string) error {
	woken, err := db.WakeUnlistedOfOtherShards(ctx, a.Pool, kind, shards, a.Retention.DeletedRetention)
	return a.dispatchWoken(kind, woken, err)
}

func (a *Activities) dispatchWoken(kind string, woken int64, err error) error {
	if err != nil {
		return fmt.Errorf("waking deleted resources of kind %s that are no longer listed: %w", kind, err)
	}
	if woken > 0 && a.Informed != nil {
		a.Informed(kind, int(woken))
	}
	return nil
}

// deleteMissing marks the resources deleted that a complete listing left out, unless an operator has to decide first.
func (p *pass) deleteMissing(ctx context.Context) error {
	if err := p.listingClaim.checkWhole(ctx); err != nil {
		return err
	}
	waits, err := p.awaitsDecision(ctx)
	if err == nil && !waits {
		err = p.deleteCounted(ctx)
	}
	if err != nil || p.in.RunForeground { // AwaitSettled still reads the recorded listing
		return err
	}
	return p.activities.removeListing(ctx, p.in.Pass)
}

// deleteCounted counts the missing resources first, because their number decides whether they may be deleted.
func (p *pass) deleteCounted(ctx context.Context) error {
	missing, err := p.countMissing(ctx)
	if err != nil {
		return err
	}
	if why := p.whyWithheld(missing); why != "" {
		if withheld, err := p.withholdDeletions(ctx, missing, why); withheld || err != nil {
			return err
		}
	}
	if missing.missing > 0 {
		if err := p.deletePages(ctx, missing); err != nil {
			return err
		}
	}
	if p.progress.Deleted > 0 && p.activities.Informed != nil {
		p.activities.Informed(p.in.Kind, p.progress.Deleted)
	}
	return p.forgetWithheld(ctx)
}

// missing counts the resources that a listing left out, of how many, and how many of them are in shards or were
// restored from a dump.
type missing struct {
	missing, total, ofShards, restored int64
	// first is the id after which the first of them is found.
	first string
}

// countMissing counts page by page, because a single statement would read a whole table under a snapshot that keeps
// dead rows.
func (p *pass) countMissing(ctx context.Context) (all missing, err error) {
	q := db.New()
	err = p.eachPage(ctx, "", func(after, to string) (bool, error) {
		counted, err := q.CountMissing(ctx, db.Planned(p.activities.Pool, deletePage), db.CountMissingParams{
			Kind: p.in.Kind, Shard: p.in.Options.Shard, Pass: p.in.Pass, Began: p.listingClaim.began, AfterObjectID: after, ToObjectID: to, OfSource: p.ofSource,
		})
		if err != nil {
			return false, fmt.Errorf("counting what is no longer listed: %w", err)
		}
		if all.missing == 0 && counted.Missing > 0 {
			all.first = after
		}
		all.missing, all.total = all.missing+counted.Missing, all.total+counted.Total
		all.ofShards, all.restored = all.ofShards+counted.OfShards, all.restored+counted.Restored
		return true, nil
	})
	return all, err
}

// eachPage calls do for pages of the kind's resources, or its shard's, after an id, while do returns true.
func (p *pass) eachPage(ctx context.Context, after string, do func(after, to string) (goOn bool, err error)) error {
	pool, q := db.Planned(p.activities.Pool, deletePage), db.New()
	for goOn := true; goOn; {
		to, err := q.PageEnd(ctx, pool, db.PageEndParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, AfterObjectID: after, Page: deletePage})
		if err != nil {
			return fmt.Errorf("finding a page of what may no longer be listed: %w", err)
		}
		if to == "" {
			return nil
		}
		if goOn, err = do(after, to); err != nil {
			return err
		}
		after = to
	}
	return nil
}

// deletePages marks the resources deleted that were counted as missing.
func (p *pass) deletePages(ctx context.Context, m missing) error {
	a, q := p.activities, db.New()
	return p.eachPage(ctx, m.first, func(after, to string) (bool, error) {
		if p.listingClaim.claim.isLost() {
			return false, errListingClaimLost
		}
		if m.restored > 0 {
			_, err := q.AdoptRestored(ctx, db.Planned(a.Pool, deletePage), db.AdoptRestoredParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, AfterObjectID: after, ToObjectID: to})
			if err != nil {
				return false, fmt.Errorf("taking over rows of a dump: %w", err)
			}
		}
		deleted, err := db.ResourcesOf(q.DeleteMissing(ctx, db.Planned(a.Pool, deletePage), db.DeleteMissingParams{
			Kind: p.in.Kind, Shard: p.in.Options.Shard, Pass: p.in.Pass, Began: p.listingClaim.began, DefaultRetention: a.Retention.DeletedRetention, AfterObjectID: after, ToObjectID: to,
			Logs: a.LogChanges, OfSource: p.ofSource,
		}))
		if err != nil {
			return false, fmt.Errorf("marking deleted what is no longer listed: %w", err)
		}
		p.progress.Deleted += len(deleted)
		p.reportDeleted(deleted)
		for i := range deleted {
			a.reportObservation(observedDeletion(&deleted[i]))
		}
		return true, nil
	})
}

func (a *Activities) removeListing(ctx context.Context, pass string) error {
	if err := db.ForgetListing(ctx, a.Pool, pass); err != nil {
		return fmt.Errorf("forgetting what was listed: %w", err)
	}
	return nil
}
