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

func ids(page []deltatype.ObjectInformParams) []string {
	all := make([]string, len(page))
	for i, p := range page {
		all[i] = p.ResourceID
	}
	return all
}

// record writes down what was listed.
func (p *pass) record(ctx context.Context) error {
	err := db.New().RecordListed(ctx, p.activities.Pool, db.RecordListedParams{Pass: p.in.Pass, ObjectIds: ids(p.page)})
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

// noteNamed does so with those whose objects are refused: they are listed too.
func (p *pass) noteNamed(ctx context.Context, objectIDs []string) error {
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
	rest := p.activities.Rest
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
	woken, err := db.WakeUnlisted(ctx, a.Pool, kind, shard, a.Rest.DeletedRetention)
	return a.dispatchWoken(kind, woken, err)
}

// wakeUnlistedBeside does so with what is of none of the shards that the controller names: it is of no pass, and may be left out by all of them together.
func (a *Activities) wakeUnlistedBeside(ctx context.Context, kind string, shards []string) error {
	woken, err := db.WakeUnlistedBeside(ctx, a.Pool, kind, shards, a.Rest.DeletedRetention)
	return a.dispatchWoken(kind, woken, err)
}

func (a *Activities) dispatchWoken(kind string, woken int64, err error) error {
	if err != nil {
		return fmt.Errorf("waking deleted resources of kind %s that are no longer listed: %w", kind, err)
	}
	if woken > 0 && a.Informed != nil {
		a.Informed(kind)
	}
	return nil
}

// deleteMissing marks deleted what a complete listing no longer had, unless somebody has to decide of that first.
func (p *pass) deleteMissing(ctx context.Context) error {
	a, q := p.activities, db.New()
	counted, err := q.CountMissing(ctx, db.Planned(a.Pool, deletePage), db.CountMissingParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, Pass: p.in.Pass, Began: p.reach.began, Waiting: p.waiting})
	if err != nil {
		return fmt.Errorf("counting what is no longer listed: %w", err)
	}
	withheld := false
	if why := p.whyWithheld(counted); why != "" {
		if withheld, err = p.withhold(ctx, counted, why); err != nil {
			return err
		}
	}
	if !withheld {
		if err := p.deletePages(ctx); err != nil {
			return err
		}
		if err := p.forgetWithheld(ctx); err != nil {
			return err
		}
		if p.progress.Deleted > 0 && a.Informed != nil {
			a.Informed(p.in.Kind)
		}
	}
	if p.in.RunForeground {
		return nil // what was listed is still asked for
	}
	return a.forget(ctx, p.in.Pass)
}

// deletePages goes through the resources of the kind, or of its shard, once, in pages.
func (p *pass) deletePages(ctx context.Context) error {
	a, q := p.activities, db.New()
	for after := ""; ; {
		to, err := q.PageEnd(ctx, db.Planned(a.Pool, deletePage), db.PageEndParams{Kind: p.in.Kind, Shard: p.in.Options.Shard, AfterObjectID: after, Page: deletePage})
		if err != nil {
			return fmt.Errorf("finding a page of what may no longer be listed: %w", err)
		}
		if to == "" {
			return nil
		}
		if p.reach.claim.isLost() {
			return errReachLost
		}
		deleted, err := db.ResourcesOf(q.DeleteMissing(ctx, db.Planned(a.Pool, deletePage), db.DeleteMissingParams{
			Kind: p.in.Kind, Shard: p.in.Options.Shard, Pass: p.in.Pass, Began: p.reach.began, DefaultRetention: a.Rest.DeletedRetention, AfterObjectID: after, ToObjectID: to,
			Logs: a.LogChanges, Waiting: p.waiting,
		}))
		if err != nil {
			return fmt.Errorf("marking deleted what is no longer listed: %w", err)
		}
		after = to
		p.progress.Deleted += len(deleted)
		p.reportDeleted(deleted)
		for i := range deleted {
			a.observe(observedDeletion(&deleted[i]))
		}
	}
}

func (a *Activities) forget(ctx context.Context, pass string) error {
	if err := db.ForgetListing(ctx, a.Pool, pass); err != nil {
		return fmt.Errorf("forgetting what was listed: %w", err)
	}
	return nil
}
