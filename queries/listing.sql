-- Objects that a complete listing has listed, and resources that it left out.

-- name: RecordListed :execrows
INSERT INTO delta_listing (pass, object_id) SELECT @pass, unnest(@object_ids::text[]) ON CONFLICT DO NOTHING;

-- name: IsListingWhole :one
-- Reports whether a pass, and all objects that it has recorded, are there. They are not if the database was restored
-- while it ran: then it may not delete what it seems to have left out.
SELECT (EXISTS (SELECT FROM delta_pass p WHERE p.claim = @claim)
    AND (SELECT count(*) FROM delta_listing l WHERE l.pass = @pass) >= @recorded::bigint)::boolean AS whole;

-- name: PageEnd :one
-- The last object id of the next page of the resources of a kind, or of those of its shard that are not deleted; empty after the last page. The page
-- of a kind has deleted resources, too: no index leaves them out. Each index is read from a place on, whatever comes after: Postgres may not know the table, and would read the
-- whole kind, and sort it, for a page.
SELECT coalesce(max(p.object_id), '')::text AS object_id FROM (
    SELECT n.object_id FROM (
        SELECT d.kind, d.object_id FROM delta_resource d
        WHERE @shard::text = '' AND (d.kind, d.object_id) > (@kind::text, @after_object_id::text)
        ORDER BY d.kind, d.object_id LIMIT @page::integer
    ) n WHERE n.kind = @kind::text
    UNION ALL
    SELECT n.object_id FROM (
        SELECT d.kind, d.is_deleted, d.shard, d.object_id FROM delta_resource d
        WHERE @shard::text <> '' AND d.shard IS NOT NULL AND (d.kind, d.is_deleted, d.shard, d.object_id) > (@kind::text, FALSE, @shard::text, @after_object_id::text)
        ORDER BY d.kind, d.is_deleted, d.shard, d.object_id LIMIT @page::integer
    ) n WHERE n.kind = @kind::text AND NOT n.is_deleted AND n.shard = @shard::text
) p;

-- name: CountMissing :one
-- How many resources of a page a pass did not list, of how many there are: of its shard, or of the whole kind for a
-- pass without one. Resources of shards are also counted by themselves, because only listings of their shard know that
-- they are gone. Rows that a transaction wrote that had not ended when the pass began (an inform, an outcome, a
-- command) are not counted. Rows that were restored from a dump are (AdoptRestored). A row that waits for Work, or is
-- worked, is counted only for a listing of a source (of_source), because no other pass comes to find that it is gone.
-- For the same reason only informs keep rows from that one.
SELECT count(*) AS total, count(*) FILTER (WHERE l.object_id IS NULL) AS missing,
    count(*) FILTER (WHERE l.object_id IS NULL AND r.shard IS NOT NULL) AS of_shards,
    count(*) FILTER (WHERE l.object_id IS NULL AND NOT pg_visible_in_snapshot(CASE WHEN @of_source::boolean THEN r.informed_by ELSE r.written_by END, (@began::text)::pg_snapshot)) AS restored
FROM delta_resource r
LEFT JOIN delta_listing l ON l.pass = @pass AND l.object_id = r.object_id AND l.object_id > @after_object_id AND l.object_id <= @to_object_id
WHERE r.kind = @kind AND (@shard::text = '' OR r.shard = @shard) AND NOT r.is_deleted AND (@of_source::boolean OR r.state NOT IN ('scheduled', 'pending'))
  AND r.object_id > @after_object_id AND r.object_id <= @to_object_id
  AND delta_is_in_reach(CASE WHEN @of_source::boolean THEN r.informed_by ELSE r.written_by END, (@began::text)::pg_snapshot);

-- name: NameMissing :many
-- The first resources that CountMissing counts as missing in a page.
SELECT (CASE WHEN @hash_ids::boolean THEN '#' || delta_hash_id(r.kind, r.object_id) ELSE r.object_id END)::text AS name
FROM delta_resource r
WHERE r.kind = @kind AND (@shard::text = '' OR r.shard = @shard) AND NOT r.is_deleted AND (@of_source::boolean OR r.state NOT IN ('scheduled', 'pending'))
  AND r.object_id > @after_object_id AND r.object_id <= @to_object_id
  AND delta_is_in_reach(CASE WHEN @of_source::boolean THEN r.informed_by ELSE r.written_by END, (@began::text)::pg_snapshot)
  AND NOT EXISTS (SELECT FROM delta_listing l WHERE l.pass = @pass AND l.object_id = r.object_id)
ORDER BY r.object_id
LIMIT @most::integer;

-- name: AdoptRestored :execrows
-- Rows of a page that were restored from a dump have transaction ids of another server, which this one may never reach:
-- DeleteMissing would leave them. Such a row is visible, and was written by a transaction that has not begun here; 3 is
-- the oldest id. This is read before rows are locked, because a row that was waited for may have been written by a
-- transaction that began after this statement, and then has another written_by.
WITH restored AS MATERIALIZED (
    SELECT d.id, d.written_by, d.informed_by, s.xmax FROM (SELECT pg_snapshot_xmax(pg_current_snapshot()) AS xmax) s, delta_resource d
    WHERE d.kind = @kind AND (@shard::text = '' OR d.shard = @shard) AND d.object_id > @after_object_id AND d.object_id <= @to_object_id
      AND (d.written_by >= s.xmax OR d.informed_by >= s.xmax)
),
locked AS MATERIALIZED (
    SELECT d.id, w.xmax FROM restored w JOIN delta_resource d ON d.id = w.id
    WHERE d.written_by = w.written_by AND d.informed_by = w.informed_by ORDER BY d.object_id FOR NO KEY UPDATE OF d
)
UPDATE delta_resource r
SET written_by = CASE WHEN r.written_by >= l.xmax THEN '3' ELSE r.written_by END,
    informed_by = CASE WHEN r.informed_by >= l.xmax THEN '3' ELSE r.informed_by END
FROM locked l WHERE r.id = l.id;

-- name: DeleteMissing :many
-- Marks those of a page deleted, locked in the order in which informs lock rows.
WITH missing AS MATERIALIZED (
    SELECT d.id, delta_unfinalized(@kind) AS finalized, CASE WHEN @logs::boolean THEN d.synced_object END AS synced_object FROM delta_resource d
    WHERE d.kind = @kind AND (@shard::text = '' OR d.shard = @shard) AND NOT d.is_deleted AND (@of_source::boolean OR d.state NOT IN ('scheduled', 'pending')) 
      AND pg_visible_in_snapshot(CASE WHEN @of_source::boolean THEN d.informed_by ELSE d.written_by END, (@began::text)::pg_snapshot)
      AND d.object_id > @after_object_id AND d.object_id <= @to_object_id
      AND NOT EXISTS (SELECT FROM delta_listing l WHERE l.pass = @pass AND l.object_id = d.object_id)
    ORDER BY d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = 'deleted',
    cause = 'unlisted',
    finalized = m.finalized,
    generation = r.generation + 1,
    generation_at = now(),
    carrier = NULL,
    synced_generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    synced_at = now(),
    touched_hash = NULL,
    change_xid = CASE WHEN @logs::boolean THEN delta_order_xid(r.change_xid) ELSE r.change_xid END,
    written_by = pg_current_xact_id(),
    due_at = now() + CASE WHEN m.finalized IS FALSE THEN '0'
        ELSE delta_retention('deleted', (SELECT n FROM delta_namespace n WHERE n.name = r.namespace), '0', '0', @default_retention::interval) END,
    dispatch_at = now(),
    queued_at = CASE WHEN m.finalized IS FALSE THEN r.queued_at END
FROM missing m
WHERE r.id = m.id AND r.kind = @kind AND r.object_id > @after_object_id AND r.object_id <= @to_object_id
RETURNING sqlc.embed(r),
    CASE WHEN @logs::boolean THEN delta_append_change('deleted', r.change_xid, r.id, r.kind, r.object_id, r.namespace, r.generation, r.sync_count,
        m.synced_object, NULL, NULL, NULL) ELSE 0 END::bigint AS change_id;

-- name: ForgetListing :one
-- Removes a page of a pass's recorded listing. Returns its last object id; empty after the last page. The table may not
-- have been analyzed since it was filled, so it is read from a place in its index on, whatever the pass, and ids are
-- looked up one by one: otherwise each page would read all of the pass.
WITH page AS MATERIALIZED (
    SELECT n.object_id FROM (
        SELECT l.pass, l.object_id FROM delta_listing l WHERE (l.pass, l.object_id) > (@pass::uuid, @after_object_id::text) ORDER BY l.pass, l.object_id LIMIT @page::integer
    ) n
    WHERE n.pass = @pass::uuid
),
forgotten AS (
    DELETE FROM delta_listing l WHERE l.pass = @pass::uuid AND l.object_id = ANY (ARRAY(SELECT p.object_id FROM page p))
)
SELECT coalesce(max(p.object_id), '')::text AS object_id FROM page p;

-- name: AbandonedListings :many
-- The passes that have written and awaited nothing for long, because their worker died. Passes are looked up one after
-- the other in the primary key, and of a pass that goes on a row or a few are read.
WITH RECURSIVE passes AS (
    (SELECT l.pass FROM delta_listing l ORDER BY l.pass LIMIT 1)
    UNION ALL
    SELECT (SELECT l.pass FROM delta_listing l WHERE l.pass > p.pass ORDER BY l.pass LIMIT 1) FROM passes p WHERE p.pass IS NOT NULL
)
SELECT p.pass::uuid AS pass FROM passes p
WHERE p.pass IS NOT NULL AND NOT EXISTS (SELECT FROM delta_listing l WHERE l.pass = p.pass AND l.listed_at >= now() - @older::interval);

-- name: TouchListing :exec
-- Notes that a run still waits for a listing.
UPDATE delta_listing SET listed_at = now() WHERE pass = @pass AND object_id = @object_id AND listed_at < now() - @older::interval;

-- name: FirstUnsettled :one
-- The first of a run's objects, from an id on, that has not settled. All before it have, so that a wait reads a listing
-- once.
SELECT l.object_id, r.awaited_parents,
    (r.awaited_parents IS NOT NULL AND r.dispatch_at IS NULL AND r.queued_at IS NULL AND NOT r.is_deleted)::boolean AS awaits_parent
FROM delta_listing l
CROSS JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.kind = @kind AND d.object_id = l.object_id LIMIT 1) r
WHERE l.pass = @pass AND l.object_id >= @from_object_id
  AND r.state IN ('scheduled', 'pending', 'failed', 'expired') AND NOT r.paused
  AND NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND c.paused)
ORDER BY l.object_id
LIMIT 1;

-- name: DegradedOfListing :many
SELECT (CASE WHEN @hash_ids::boolean THEN '#' || delta_hash_id(r.kind, r.object_id) ELSE r.object_id END)::text AS name, count(*) OVER () AS total
FROM delta_listing l JOIN delta_resource r ON r.kind = @kind AND r.object_id = l.object_id
WHERE l.pass = @pass AND r.state = 'degraded'
ORDER BY r.object_id
LIMIT @most::integer;

-- name: BeginPass :exec
-- From here on informs of the kind that change nothing write their rows.
INSERT INTO delta_pass (claim, kind, shard) VALUES (@claim, @kind, @shard);

-- name: EndPass :exec
-- Also ends passes of dead workers.
DELETE FROM delta_pass p WHERE p.claim = @claim OR NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = p.claim AND c.claimed_until > now());

-- name: Snapshot :one
-- Returns which transactions have ended.
SELECT pg_current_snapshot()::text AS snapshot;

-- name: CountStale :many
-- Notes which objects a pass found older than the stored ones, and returns those that were older in several passes in a
-- row.
WITH counted AS (
    INSERT INTO delta_stale AS s (kind, object_id, pass) SELECT @kind, unnest(@object_ids::text[]), @pass
    ON CONFLICT (kind, object_id) DO UPDATE
    SET passes = CASE WHEN s.pass = excluded.pass THEN s.passes ELSE s.passes + 1 END, pass = excluded.pass, seen_at = now()
    RETURNING s.object_id, s.passes, s.since
)
SELECT c.object_id, c.passes, c.since FROM counted c WHERE c.passes >= @several::integer ORDER BY c.object_id;

-- name: ForgetStale :exec
-- Objects that a pass found up to date. They are looked up one by one: for the array itself, Postgres may read the
-- whole kind of a table that was not analyzed.
DELETE FROM delta_stale WHERE kind = @kind AND object_id = ANY (ARRAY(SELECT unnest(@object_ids::text[])));

-- name: SweepStale :execrows
-- A page of a thousand of the objects that no pass has listed for long, of all kinds. A locked one is being listed at
-- this moment.
DELETE FROM delta_stale WHERE ctid = ANY (ARRAY(
    SELECT s.ctid FROM delta_stale s WHERE s.seen_at < now() - @older::interval ORDER BY s.seen_at LIMIT 1000 FOR UPDATE SKIP LOCKED
));

-- name: StaleKinds :many
-- How many objects of each kind several passes in a row found older than the stored ones.
SELECT kind, count(*) AS count FROM delta_stale WHERE passes >= @several::integer GROUP BY kind;
