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

// MinStalePasses is in how many passes in a row an object is found stale before that looks like a fault. Once or twice a webhook was faster.
const MinStalePasses = 3

// countStale counts the objects of the page that are older than what is stored, and remembers them across passes. Kinds without versions have
// none, and are not asked for.
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

// staleOf divides objects into those that are stale and those that are not, each once: one that is listed twice may be both, and is not stale then.
// Of one that is refused nothing is known, and one whose resource stays deleted would not be taken in a newer version either.
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

// warnStale says which objects pass after pass has found stale. A Compare that returns a negative number for "differs" would lose changes otherwise
// without a word.
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
