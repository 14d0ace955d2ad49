package db_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/chariot-giving/delta/db"
)

// informStatements write objects.
func informStatements(few int) map[string]frequent {
	q := db.New()
	return map[string]frequent{
		"RaisePriorities": {
			before: "state = 'failed', priority = 5",
			do: func(ctx context.Context, conn db.DBTX, ids []int64) (int, error) {
				p := db.RaisePrioritiesParams{Ids: ids}
				for range ids {
					p.Priorities = append(p.Priorities, 1)
				}
				rows, err := q.RaisePriorities(ctx, conn, p)
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
	}
}

// listingStatements belong to listings.
func listingStatements(few int) map[string]frequent {
	q := db.New()
	pass := uuid.NewString()
	return map[string]frequent{
		"FirstUnsettled": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, `INSERT INTO delta_listing (pass, object_id) SELECT $1, object_id FROM delta_resource
					WHERE kind = 'thing'`, pass)
				if err != nil {
					return 0, err
				}
				if _, err := q.FirstUnsettled(ctx, conn, db.FirstUnsettledParams{Kind: "thing", Pass: pass}); err != nil {
					return 0, err
				}
				// Where it left off, there is no need to read what comes before, nor after.
				last, err := q.FirstUnsettled(ctx, conn, db.FirstUnsettledParams{Kind: "thing", Pass: pass, FromObjectID: "000500"})
				if last.ObjectID != "000500" {
					err = errors.Join(err, fmt.Errorf("the first is %q", last.ObjectID))
				}
				return 1, err
			},
			does: 1, most: 3 * few,
		},
		"DeleteMissing": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.DeleteMissing(ctx, conn, db.DeleteMissingParams{
					Kind: "thing", Pass: pass, Began: farAhead, AfterObjectID: "010000", ToObjectID: fmt.Sprintf("%06d", 10000+few), DefaultRetention: time.Hour,
				})
				return len(rows), err
			},
			does: few, most: 4 * few,
		},
		"PageEnd, CountMissing, NameMissing": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return countMissing(ctx, conn, "", pass, "010000", few)
			},
			does: few, most: 3 * few,
		},
		"PageEnd, CountMissing, NameMissing of a shard": {
			before: "shard = 'eu', state = (CASE WHEN object_id > '003500' THEN 'synced' ELSE 'deleted' END)::delta_resource_state",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if _, err := conn.Exec(ctx, "SET LOCAL plan_cache_mode = auto"); err != nil { // they are planned each time
					return 0, err
				}
				return countMissing(ctx, conn, "eu", pass, "", few)
			},
			does: 5, most: few + 2*5, // a page is read from the shard on, whatever comes after
		},
		"NameShards": {
			before: `shard = CASE WHEN object_id <= '001500' THEN 'eu' WHEN object_id <= '003500' THEN 'forgotten' ELSE 'left' END,
				state = (CASE WHEN object_id > '003500' THEN 'synced' ELSE 'deleted' END)::delta_resource_state`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if _, err := conn.Exec(ctx, "INSERT INTO delta_shard (kind, shard) VALUES ('thing', 'eu')"); err != nil {
					return 0, err
				}
				rows, err := q.NameShards(ctx, conn, db.NameShardsParams{Kind: "thing", Shards: []string{"us"}})
				return len(rows), err // eu and us, which it knows, and left
			},
			does: 3, most: 2,
		},
		"ForgetShard": {
			before: "shard = 'eu', state = 'deleted'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if _, err := conn.Exec(ctx, "INSERT INTO delta_shard (kind, shard, gone_at) VALUES ('thing', 'eu', now())"); err != nil {
					return 0, err
				}
				n, err := q.ForgetShard(ctx, conn, db.ForgetShardParams{Kind: "thing", Shard: "eu"})
				return int(n), err
			},
			does: 1, most: 1,
		},
	}
}

// readStatements only read.
func readStatements(few int) map[string]frequent {
	q := db.New()
	pass := uuid.NewString()
	return map[string]frequent{
		"ListResources, ListResourcesDescending of degraded ones": {
			before: "state = 'degraded'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listWithError(ctx, conn, []string{"degraded", "failed"}, "")
			},
			does: few, most: 2 * 2 * few,
		},
		"ListResources, ListResourcesDescending with an error": {
			before: `state = 'failed', errors = ARRAY['{"error": "100% wrong"}'::jsonb]`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listWithError(ctx, conn, nil, "0% w")
			},
			does: few, most: 2 * 2 * few,
		},
		"ListFew by error": {
			before: `state = 'failed', errors = ARRAY['{"error": "100% wrong"}'::jsonb]`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listedFew(ctx, conn, "error", false)
			},
			does: few, most: 3 * few,
		},
		"ListFew of late ones": {
			before: "state = 'scheduled', due_at = now() - interval '1 hour', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				return listedFew(ctx, conn, "due", true)
			},
			does: few, most: 6 * few,
		},
		"CountLate": {
			before: "state = 'scheduled', due_at = now() - interval '1 hour', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.CountLate(ctx, conn, db.CountLateParams{Grace: time.Minute, Longest: 15 * time.Minute, Most: 1000})
				if err != nil || len(rows) != 1 {
					return 0, err
				}
				return int(rows[0].Count), err
			},
			does: few, most: 3 * few,
		},
		"MeasureDue": {
			before: "state = 'scheduled', due_at = now(), dispatch_at = now() - interval '1 second'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.MeasureDue(ctx, conn, 1000)
				if err != nil || len(rows) != 2 || rows[0].Kind != "other" || rows[0].Count != 0 || rows[1].Kind != "thing" {
					return 0, errors.Join(err, fmt.Errorf("no client has started with these kinds, and they are %+v", rows))
				}
				return int(rows[1].Count), err
			},
			does: few, most: 3 * few,
		},
		"ExplainResource": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				found, err := q.ExplainResource(ctx, conn, db.ExplainResourceParams{Kind: "thing", ObjectID: "000500", Several: 3})
				if found.Resource.ObjectID != "000500" {
					err = errors.Join(err, fmt.Errorf("it is %q", found.Resource.ObjectID))
				}
				return 1, err
			},
			does: 1, most: few,
		},
		"PreviousObject": {
			before: "state = 'synced'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, `SELECT delta_append_change('updated', delta_order_xid(null), 1, 'thing', lpad(g::text, 6, '0'), 'default', 1, 1, '{"a": 1}', '{}', null, null)
					FROM generate_series(1, 1000) g`)
				if err != nil {
					return 0, err
				}
				found, err := q.PreviousObject(ctx, conn, db.PreviousObjectParams{Kind: "thing", ObjectID: "000500"})
				if err != nil {
					return 0, err
				}
				versions, err := q.PreviousVersions(ctx, conn, db.PreviousVersionsParams{Kind: "thing", ObjectID: "000500", Object: found.Object, Most: 1})
				if len(versions) == 1 && string(versions[0].Before) != `{"a": 1}` {
					err = errors.Join(err, fmt.Errorf("it is %q", versions[0].Before))
				}
				return len(versions), err
			},
			does: 1, most: 3,
		},
		"RelatedResources": {
			before: `state = 'pending', parents = '{thing/000500,other/000001}', limit_key = 'key', slot_key = 'key', workflow_id = 'batch/1',
				dispatch_at = now() + interval '1 minute'`,
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				rows, err := q.RelatedResources(ctx, conn, db.RelatedResourcesParams{
					Kind: "thing", ObjectID: "000500", Resource: "thing/000500", Most: 20, Longest: 15 * time.Minute, BatchPrefix: "batch/",
				})
				return len(rows), err
			},
			does: 2 + 3*20, most: 5 * few, // two parents; children, holders of its key, and members of its batch
		},
		"CountClaimed": {
			before: "state = 'pending', claim = gen_random_uuid(), claimed_until = now() + interval '1 minute', dispatch_at = now() + interval '1 minute'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				if err := limitKeys(ctx, conn, 1); err != nil {
					return 0, err
				}
				counted, err := q.CountClaimed(ctx, conn, db.CountClaimedParams{Kind: "thing", Namespace: "default", Longest: 15 * time.Minute})
				return int(counted.OfKind), err
			},
			does: few, most: 3 * few,
		},
		"UnsettledOfPage": {
			before: "state = 'failed'",
			do: func(ctx context.Context, conn db.DBTX, _ []int64) (int, error) {
				_, err := conn.Exec(ctx, `INSERT INTO delta_listing (pass, object_id) SELECT $1, object_id FROM delta_resource
					WHERE kind = 'thing'`, pass)
				if err != nil {
					return 0, err
				}
				page, err := q.UnsettledOfPage(ctx, conn, db.UnsettledOfPageParams{Kind: "thing", Pass: pass, AfterObjectID: "003900", Page: 200})
				if page.Listed != 200 || page.LastObjectID != "004100" {
					err = errors.Join(err, fmt.Errorf("the page has %d, up to %q", page.Listed, page.LastObjectID))
				}
				return int(page.Unsettled), err
			},
			does: 1, most: 2 * 200,
		},
	}
}

// none is a part of a filter that asks for nothing.
var none = []string{}

// listWithError lists what is in some states and has an error, from both ends.
func listWithError(ctx context.Context, conn db.DBTX, states []string, text string) (int, error) {
	if err := planEachTime(ctx, conn); err != nil {
		return 0, err
	}
	states = append([]string{}, states...)
	forwards, err := db.New().ListResources(ctx, db.Planned(conn, 1000), db.ListResourcesParams{
		Kinds: []string{"thing"}, ObjectIds: none, Namespaces: none, Shards: none, States: states, Tags: none, Labels: []byte("{}"), Error: text, Batch: 50,
	})
	if err != nil {
		return 0, err
	}
	backwards, err := db.New().ListResourcesDescending(ctx, db.Planned(conn, 1000), db.ListResourcesDescendingParams{
		BeforeID: math.MaxInt64,
		Kinds:    none, ObjectIds: none, Namespaces: none, Shards: none, States: states, Tags: none, Labels: []byte("{}"), Error: text, Batch: 50,
	})
	if len(backwards) != len(forwards) {
		err = errors.Join(err, fmt.Errorf("from one end there are %d, from the other %d", len(forwards), len(backwards)))
	}
	return len(forwards), err
}

// listedFew lists failing or late rows in an order.
func listedFew(ctx context.Context, conn db.DBTX, sort string, late bool) (int, error) {
	if err := planEachTime(ctx, conn); err != nil {
		return 0, err
	}
	rows, err := db.New().ListFew(ctx, db.Planned(conn, 1000), db.ListFewParams{
		Sort: sort, Late: late, First: true, Batch: 50, Grace: time.Minute, Longest: 15 * time.Minute,
		Kinds: none, ObjectIds: none, Namespaces: none, Shards: none, States: none, Tags: none, Labels: []byte("{}"),
	})
	return len(rows), err
}

// countMissing finds a page, counts what a pass has left out of it, and names that.
func countMissing(ctx context.Context, conn db.DBTX, shard, pass, after string, page int) (int, error) {
	q, planned := db.New(), db.Planned(conn, 1000)
	to, err := q.PageEnd(ctx, planned, db.PageEndParams{Kind: "thing", Shard: shard, AfterObjectID: after, Page: int32(page)})
	if err != nil {
		return 0, err
	}
	counted, err := q.CountMissing(ctx, planned, db.CountMissingParams{Kind: "thing", Shard: shard, Pass: pass, Began: farAhead, AfterObjectID: after, ToObjectID: to})
	if err != nil {
		return 0, err
	}
	names, err := q.NameMissing(ctx, planned, db.NameMissingParams{
		Kind: "thing", Shard: shard, Pass: pass, Began: farAhead, AfterObjectID: after, ToObjectID: to, Most: int32(page),
	})
	if counted.Total != counted.Missing || int64(len(names)) != counted.Missing {
		err = errors.Join(err, fmt.Errorf("counted are %+v, named %d", counted, len(names)))
	}
	return int(counted.Missing), err
}
