package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// columns has the values of a set of rows by column.
type columns struct {
	kinds, ids      []string
	objects, hashes [][]byte
}

func encodeColumns(page []item) (c columns, err error) {
	for _, it := range page {
		encoded, err := json.Marshal(it)
		if err != nil {
			return c, err
		}
		sum := sha256.Sum256(encoded)
		c.kinds, c.ids = append(c.kinds, it.Kind()), append(c.ids, it.ID())
		c.objects, c.hashes = append(c.objects, encoded), append(c.hashes, sum[:])
	}
	return c, nil
}

// bareLease writes the columns of a lease for the rows of one page. LeaseDue itself would also take rows that other pages have made due.
const bareLease = `UPDATE delta_resource SET dispatch_at = now() + interval '1 minute', workflow_id = $2 WHERE id = ANY ($1)`

// barePage runs Delta's own statements for a page: the upsert, a lease of its rows, the claim and the outcomes.
func barePage(ctx context.Context, pool *pgxpool.Pool, page []item) error {
	c, err := encodeColumns(page)
	if err != nil {
		return err
	}
	q, n, batch := db.New(), len(page), "batch of "+c.ids[0]
	p := db.InformResourcesParams{
		Kinds: c.kinds, ObjectIds: c.ids, Objects: c.objects, Hashes: c.hashes, Namespaces: make([]string, n), Metadatas: make([]string, n),
		Tags: make([]string, n), MaxAttempts: make([]int16, n), ExternalCreatedAts: make([]time.Time, n), Priorities: make([]int16, n),
		DefaultMaxAttempts: 10,
	}
	for i := range n {
		p.Priorities[i] = 3
	}
	informed, err := q.InformResources(ctx, plannedEachTime{pool}, p)
	if err != nil {
		return err
	}
	ids := make([]int64, len(informed))
	for i, row := range informed {
		ids[i] = row.ID
	}
	if _, err := pool.Exec(ctx, bareLease, ids, batch); err != nil {
		return err
	}
	claim := uuid.NewString()
	claimed, err := q.ClaimResources(ctx, pool, db.ClaimResourcesParams{
		Claim: claim, ClaimFor: 2 * activities.HeartbeatTimeout, WorkflowID: batch, MaxErrors: activities.MaxErrors, MostLost: 2,
		Ids: ids, Kind: batchedKind,
	})
	if err != nil {
		return err
	}
	o := db.WriteOutcomesParams{
		Claim: claim, Lease: activities.DispatchLease, MaxErrors: activities.MaxErrors, DefaultExpiry: expiry, Earlier: 0.05,
		DefaultSyncedRetention: expiry, DefaultDegradedRetention: expiry, DefaultDeletedRetention: expiry,
	}
	for i := range claimed {
		row := &claimed[i].Resource
		var decoded item
		if err := json.Unmarshal(row.Object, &decoded); err != nil {
			return err
		}
		o.Ids, o.Generations, o.States = append(o.Ids, row.ID), append(o.Generations, row.Generation), append(o.States, string(deltatype.ResourceStateSynced))
		o.Delays, o.Graces = append(o.Delays, 0), append(o.Graces, activities.DueGrace)
		o.Counted, o.Snoozed, o.Kept = append(o.Counted, true), append(o.Snoozed, false), append(o.Kept, false)
		o.Errors = append(o.Errors, "")
	}
	completed, err := q.WriteOutcomes(ctx, pool, o)
	if err == nil && len(completed) != n {
		err = fmt.Errorf("%d of %d rows were synced", len(completed), n)
	}
	return err
}

// plannedEachTime makes Postgres plan each statement with its arguments, as db.Inform does for large sets.
type plannedEachTime struct{ db.DBTX }

func (c plannedEachTime) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return c.DBTX.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
}

const (
	leastUpsert = bareUpsertMany + ` RETURNING id`
	leastClaim  = `
UPDATE bench_resource SET state = 'pending', attempt = attempt + 1, attempted_at = now(), due_at = NULL
WHERE id = ANY ($1) AND state = 'scheduled' RETURNING id, object, generation, attempt`
	leastComplete = `
UPDATE bench_resource SET state = 'synced', synced_generation = generation, sync_count = sync_count + 1, synced_at = now(),
	due_at = now() + interval '1 day', dispatch_at = now() + interval '1 day 1 minute'
WHERE id = ANY ($1) AND state = 'pending'`
)

// leastPage runs the least work that syncing a page needs from Postgres.
func leastPage(ctx context.Context, pool *pgxpool.Pool, page []item) error {
	c, err := encodeColumns(page)
	if err != nil {
		return err
	}
	rows, err := pool.Query(ctx, leastUpsert, c.kinds, c.ids, c.objects, c.hashes)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	if rows, err = pool.Query(ctx, leastClaim, ids); err != nil {
		return err
	}
	for rows.Next() {
		var id, generation int64
		var attempt int32
		var object []byte
		if err := rows.Scan(&id, &object, &generation, &attempt); err != nil {
			return err
		}
		var decoded item
		if err := json.Unmarshal(object, &decoded); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, leastComplete, ids)
	return err
}
