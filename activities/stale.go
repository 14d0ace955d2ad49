package activities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// MinStalePasses is in how many passes in a row an object is stale before that looks like a fault. Once or twice, a
// webhook was faster.
const MinStalePasses = 3

// countStale counts the page's objects that are older than the stored ones, and remembers them across passes. Kinds
// without versions have none, and cost no statement.
func (p *pass) countStale(ctx context.Context, results []*deltatype.ObjectInformResult) error {
	versioned := false
	for i := range p.page {
		versioned = versioned || p.page[i].Revision != nil || p.page[i].Compare != nil
	}
	if !versioned {
		return nil
	}
	stale, current := staleOf(results)
	a, q := p.activities, db.New()
	if err := q.ForgetStale(ctx, a.Pool, db.ForgetStaleParams{Kind: p.in.Kind, ObjectIds: current}); err != nil {
		return fmt.Errorf("forgetting which objects were stale: %w", err)
	}
	if len(stale) == 0 {
		return nil
	}
	if p.in.Pass == "" {
		p.in.Pass = uuid.NewString()
	}
	p.progress.Stale += len(stale)
	lagging, err := q.CountStale(ctx, a.Pool, db.CountStaleParams{Kind: p.in.Kind, ObjectIds: stale, Pass: p.in.Pass, Several: MinStalePasses})
	if err != nil {
		return fmt.Errorf("counting which objects are stale: %w", err)
	}
	p.laggards += len(lagging)
	for _, row := range lagging {
		if len(p.lagging) < maxRefusedShown {
			p.lagging = append(p.lagging, fmt.Sprintf("%s (%d passes, since %s)", row.ObjectID, row.Passes, row.Since.UTC().Format(time.RFC3339)))
		}
	}
	return nil
}

// staleOf divides objects into stale and current ones, each once: an object that is listed twice may be both, and is
// current then. Refused objects are left out, and so are objects of a resource that stays deleted, because a newer
// version would not be taken either.
func staleOf(results []*deltatype.ObjectInformResult) (stale, current []string) {
	is := map[string]bool{}
	for _, r := range results {
		if r.Refused != nil || (r.Resource.State == deltatype.ResourceStateDeleted && r.Resource.Cause != deltatype.CauseUnlisted) {
			continue
		}
		before, seen := is[r.Resource.ObjectID]
		is[r.Resource.ObjectID] = r.Stale && (!seen || before)
	}
	stale, current = []string{}, make([]string, 0, len(is))
	for _, id := range slices.Sorted(maps.Keys(is)) {
		if is[id] {
			stale = append(stale, id)
		} else {
			current = append(current, id)
		}
	}
	return stale, current
}

// warnStale logs objects that pass after pass found stale. Otherwise a Compare that returns a negative number for
// "differs" would lose changes silently.
func (p *pass) warnStale() {
	if p.laggards == 0 {
		return
	}
	some := p.lagging
	if p.activities.HashObjectIDs {
		some = nil
	}
	p.log().Warn("objects are listed in an older version than the stored one, pass after pass, and are not taken: is their Compare, "+
		"or their Revision, right? Force takes them", "objects", p.laggards, "some", some)
}
