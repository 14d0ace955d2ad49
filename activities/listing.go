package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

const (
	// deletePage is how many resources one statement looks at, to mark those deleted that were not listed.
	deletePage = 1000
	// ListingsKept is when the notes of a pass are too old to be of use to anybody: nothing of them was written or awaited for as long.
	ListingsKept = 7 * 24 * time.Hour
)

func objectIDs(page []deltatype.ObjectInformParams) []string {
	all := make([]string, len(page))
	for i, p := range page {
		all[i] = p.ResourceID
	}
	return all
}

// recordListed writes down what was listed.
func (p *pass) recordListed(ctx context.Context) error {
	err := db.New().RecordListed(ctx, p.activities.Pool, db.RecordListedParams{Pass: p.in.Pass, ObjectIds: objectIDs(p.page)})
	if err != nil {
		return fmt.Errorf("recording a page of %d: %w", len(p.page), err)
	}
	return nil
}

// noteListed has resources kept that are listed, and stay degraded or deleted.
func (p *pass) noteListed(ctx context.Context, results []*deltatype.ObjectInformResult) error {
	var stay []int64
	for _, r := range results {
		if r.Refused == nil && (r.Resource.State == deltatype.ResourceStateDegraded || r.Resource.State == deltatype.ResourceStateDeleted) {
			stay = append(stay, r.Resource.ID)
		}
	}
	return p.noteStaying(ctx, stay)
}

// noteRefusedListed does so with those whose objects are refused: they are listed too.
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

// wakeUnlisted has a dispatcher remove what was deleted explicitly, and was kept until a complete listing left it out. A row whose retention ends at
// this moment may be missed; the next complete listing finds it.
func (a *Activities) wakeUnlisted(ctx context.Context, kind, shard string) error {
	woken, err := db.WakeUnlisted(ctx, a.Pool, kind, shard, a.Retention.DeletedRetention)
	return a.dispatchWoken(kind, woken, err)
}

// wakeUnlistedBeside does so with what is of none of the shards that the controller names: it is of no pass, and may be left out by all of them together.
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

// deleteMissing marks deleted what a complete listing no longer had, unless somebody has to decide of that first.
func (p *pass) deleteMissing(ctx context.Context) error {
	waits, err := p.awaitsDecision(ctx)
	if err == nil && !waits {
		err = p.deleteCounted(ctx)
	}
	if err != nil || p.in.RunForeground { // what was listed is still asked for
		return err
	}
	return p.activities.removeListing(ctx, p.in.Pass)
}

// deleteCounted counts first, because how much there is decides whether it may be deleted.
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

// missing is how many resources a listing has left out, of how many, and how many of them are of shards, or were restored from a dump.
type missing struct {
	missing, total, ofShards, restored int64
	// first is the id after which the first of them is found.
	first string
}

// countMissing counts page by page: one statement for all would read a whole table while its snapshot keeps dead rows.
func (p *pass) countMissing(ctx context.Context) (all missing, err error) {
	q := db.New()
	err = p.eachPage(ctx, "", func(after, to string) (bool, error) {
		counted, err := q.CountMissing(ctx, db.Planned(p.activities.Pool, deletePage), db.CountMissingParams{
			Kind: p.in.Kind, Shard: p.in.Options.Shard, Pass: p.in.Pass, Began: p.listingClaim.began, AfterObjectID: after, ToObjectID: to, Waiting: p.waiting,
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

// eachPage goes through the resources of the kind, or of its shard, in pages, from an id on, for as long as do has it go on.
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

// deletePages marks deleted what was counted as missing.
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
			Logs: a.LogChanges, Waiting: p.waiting,
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
