package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/shorten"
)

const (
	// maxReported is how many ids a list of a report has.
	maxReported = 20
	// maxReportedBytes bounds an id, a shard or a cursor in a report.
	maxReportedBytes = 200
)

// PassReport describes what a pass listed, and names missing resources. It is part of the run's result, which
// Temporal keeps, so reading it needs no worker. Ids are hashes where object ids are kept from Temporal.
type PassReport struct {
	Shard string `json:"shard,omitempty"`
	// After and Cursor are where the listing went on from; both are empty for a listing of everything. A cursor may be
	// cut. It is left out where object ids are kept from Temporal, because it may contain one.
	After  *time.Time `json:"after,omitempty"`
	Cursor string     `json:"cursor,omitempty"`
	// Complete reports whether the listing names all objects, so that left-out resources are gone.
	Complete bool `json:"complete,omitempty"`
	// Pages counts the written pages.
	Pages int `json:"pages,omitempty"`
	// Deleted are the first resources that were marked deleted, Withheld the first that were not, because an operator
	// has to decide first.
	Deleted  []string `json:"deleted_ids,omitempty"`
	Withheld []string `json:"withheld_ids,omitempty"`
}

// beginReport begins the report of a pass with these options.
func (a *Activities) beginReport(options deltatype.InformOptions, complete bool) *PassReport {
	r := &PassReport{Shard: shorten.Text(options.Shard, maxReportedBytes), After: options.After, Complete: complete}
	if !a.HashObjectIDs {
		r.Cursor = shorten.Text(options.Cursor, maxReportedBytes)
	}
	return r
}

// add returns the report of the passes of several shards.
func (r *PassReport) add(o *PassReport) *PassReport {
	if r == nil || o == nil {
		return cmp.Or(r, o)
	}
	return &PassReport{
		Complete: r.Complete && o.Complete, Pages: r.Pages + o.Pages,
		Deleted: joinReported(r.Deleted, o.Deleted), Withheld: joinReported(r.Withheld, o.Withheld),
	}
}

func joinReported(some, more []string) []string {
	all := slices.Concat(some, more)
	return all[:min(len(all), maxReported)]
}

// reportDeleted adds resources that were marked deleted, in the order of their ids. A statement returns its rows in any order.
func (p *pass) reportDeleted(rows []db.Resource) {
	slices.SortFunc(rows, func(a, b db.Resource) int { return strings.Compare(a.ObjectID, b.ObjectID) })
	r := p.progress.Pass
	for i := range rows {
		if len(r.Deleted) == maxReported {
			return
		}
		switch hashed := rows[i].HashedID; {
		case !p.activities.HashObjectIDs:
			r.Deleted = append(r.Deleted, shorten.Text(rows[i].ObjectID, maxReportedBytes))
		case hashed != nil:
			r.Deleted = append(r.Deleted, "#"+*hashed)
		}
	}
}

// reportWithheld adds resources after an id that a listing left out and that were not marked deleted.
func (p *pass) reportWithheld(ctx context.Context, first string) error {
	q := db.New()
	var named []string
	err := p.eachPage(ctx, first, func(after, to string) (bool, error) {
		names, err := q.NameMissing(ctx, db.Planned(p.activities.Pool, deletePage), db.NameMissingParams{
			Kind: p.in.Kind, Shard: p.in.Options.Shard, Pass: p.in.Pass, Began: p.listingClaim.began, HashIds: p.activities.HashObjectIDs,
			AfterObjectID: after, ToObjectID: to, Most: int32(maxReported - len(named)), OfSource: p.ofSource, //nolint:gosec // it has a bound
		})
		if err != nil {
			return false, fmt.Errorf("naming what is withheld: %w", err)
		}
		for _, name := range names {
			named = append(named, shorten.Text(name, maxReportedBytes))
		}
		return len(named) < maxReported, nil
	})
	p.progress.Pass.Withheld = named
	return err
}
