package delta

import (
	"context"
	"math"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

// latePage is how many late resources one query finds for a command: finding any of them reads all of them.
const latePage = 10_000

// matchingPages returns the resources that a filter chooses, page by page, in the order of their rows.
type matchingPages struct {
	client *Client
	params db.MatchingResourcesParams
	isLate bool
	// found are the late resources that were not returned yet.
	found []int64
}

// next returns a page; an empty one is the end.
func (m *matchingPages) next(ctx context.Context) (ids []int64, err error) {
	if m.isLate {
		return m.nextLate(ctx)
	}
	m.params.Batch = commandPage
	ids, err = db.New().MatchingResources(ctx, db.Planned(m.client.pool, maxPage), m.params)
	if len(ids) > 0 {
		m.params.AfterID = ids[len(ids)-1]
	}
	return ids, err
}

// nextLate checks a page again before it returns it, because late resources may have been worked since.
func (m *matchingPages) nextLate(ctx context.Context) ([]int64, error) {
	for {
		if len(m.found) == 0 {
			found, err := m.findLate(ctx, nil, m.params.AfterID, latePage)
			if err != nil || len(found) == 0 {
				return nil, err
			}
			m.found, m.params.AfterID = found, found[len(found)-1]
		}
		n := min(len(m.found), commandPage)
		ids, err := m.findLate(ctx, m.found[:n], 0, n)
		if err != nil {
			return nil, err
		}
		if m.found = m.found[n:]; len(ids) > 0 {
			return ids, nil
		}
	}
}

// findLate finds late resources among some ids, or among all if that is nil.
func (m *matchingPages) findLate(ctx context.Context, among []int64, after int64, most int) ([]int64, error) {
	p := m.params
	return db.New().MatchingLate(ctx, db.Planned(m.client.pool, maxPage), db.MatchingLateParams{
		Ids: among, AfterID: after, Batch: int32(most), Grace: lateGrace, Longest: activities.LongestLease, //nolint:gosec // it is latePage at most
		Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
	})
}

// countMatching counts matching resources, up to most.
func (c *Client) countMatching(ctx context.Context, p db.MatchingResourcesParams, isLate bool, most int) (int, error) {
	var n int64
	var err error
	conn, bound := db.Planned(c.pool, maxPage), int32(min(most, math.MaxInt32)) //nolint:gosec // it is not negative
	if isLate {
		n, err = db.New().CountMatchingLate(ctx, conn, db.CountMatchingLateParams{
			Grace: lateGrace, Longest: activities.LongestLease, Most: bound,
			Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
		})
	} else {
		n, err = db.New().CountMatchingResources(ctx, conn, db.CountMatchingResourcesParams{
			Most:  bound,
			Kinds: p.Kinds, ObjectIds: p.ObjectIds, Namespaces: p.Namespaces, Shards: p.Shards, States: p.States, Tags: p.Tags, Labels: p.Labels, Error: p.Error,
		})
	}
	return int(n), err
}

// queryParams returns the parameters of statements for a filter; empty lists choose everything.
func (f Filter) queryParams() (db.MatchingResourcesParams, error) {
	labels, err := f.encodeLabels()
	if err != nil {
		return db.MatchingResourcesParams{}, err
	}
	return db.MatchingResourcesParams{
		Kinds: orEmpty(f.Kinds), ObjectIds: orEmpty(f.ObjectIDs), Namespaces: orEmpty(f.Namespaces), Shards: orEmpty(f.Shards), States: toStrings(f.States),
		Tags: orEmpty(f.Tags), Labels: labels, Error: f.Error,
	}, nil
}
