-- Rows that wait for their parents (ObjectWithParents). A row waits for one of them at a time, the first of awaited_parents, in no dispatcher's index. Dispatchers
-- of its kind look at the awaited parents, and wake the rows that wait for synced ones.

-- name: AwaitParents :many
-- Of rows that were leased, or could not be claimed, those that await a parent that was never synced wait from now on.
-- The claim decides about the others. Locked rows are skipped: their lease will expire.
WITH o AS MATERIALIZED (
    SELECT l.id, l.awaited
    FROM (SELECT unnest(@ids::bigint[]) AS id) m
    CROSS JOIN LATERAL (
        SELECT d.id, delta_unsynced(d.awaited_parents) AS awaited FROM delta_resource d
        WHERE d.id = m.id AND d.kind = @kind AND d.awaited_parents IS NOT NULL
          AND d.state IN ('scheduled', 'expired', 'failed') AND d.due_at <= now()
          AND (d.claimed_until IS NULL OR (d.claimed_until <= now()
            AND NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > now())))
          AND delta_unsynced(d.awaited_parents) IS NOT NULL
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
)
UPDATE delta_resource r SET awaited_parents = o.awaited, dispatch_at = NULL, queued_at = NULL
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[]) AND o.awaited IS NOT NULL
RETURNING r.id;

-- name: WakeChildrenOf :one
-- Makes rows due that wait for some parents, each as kind/id, that were synced. Returns how many. The dispatcher that
-- leases them looks at their other parents. Locked rows are skipped: the next look finds them.
WITH woken AS (
    UPDATE delta_resource r SET dispatch_at = now()
    WHERE r.id = ANY (ARRAY(
        SELECT c.id FROM unnest(@parents::text[]) AS p (parent)
        CROSS JOIN LATERAL (
            SELECT d.id FROM delta_resource d
            WHERE d.kind = @kind AND d.awaited_parents[1] = p.parent
              AND d.awaited_parents IS NOT NULL AND d.dispatch_at IS NULL AND d.queued_at IS NULL AND NOT d.is_deleted
            LIMIT @page::integer
            FOR NO KEY UPDATE SKIP LOCKED
        ) c
        LIMIT @page::integer
    ))
    RETURNING r.id
)
SELECT count(*) FROM woken;

-- name: AwaitedParents :many
-- A page of the parents that rows of a kind wait for, each as kind/id and once, and whether it was synced meanwhile.
WITH RECURSIVE awaited (parent, n) AS (
    (
        SELECT d.awaited_parents[1], 1 FROM delta_resource d
        WHERE d.kind = @kind AND d.awaited_parents[1] > @after_parent::text
          AND d.awaited_parents IS NOT NULL AND d.dispatch_at IS NULL AND d.queued_at IS NULL AND NOT d.is_deleted
        ORDER BY d.awaited_parents[1] LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT d.awaited_parents[1] FROM delta_resource d
        WHERE d.kind = @kind AND d.awaited_parents[1] > a.parent
          AND d.awaited_parents IS NOT NULL AND d.dispatch_at IS NULL AND d.queued_at IS NULL AND NOT d.is_deleted
        ORDER BY d.awaited_parents[1] LIMIT 1
    ), a.n + 1
    FROM awaited a
    WHERE a.parent IS NOT NULL AND a.n < @page::integer
)
SELECT a.parent::text AS parent, (delta_unsynced(ARRAY[a.parent]) IS NULL)::boolean AS synced FROM awaited a WHERE a.parent IS NOT NULL;

-- name: ParentsAbove :many
-- The parents of some resources, each as kind/id, their parents, and so on, up to a depth and a number of rows.
-- Resources without a row or without parents are missing.
WITH RECURSIVE above (resource, parents, depth) AS (
    SELECT s.resource COLLATE "C", d.parents, 1
    FROM unnest(@resources::text[]) AS s (resource)
    CROSS JOIN LATERAL (
        SELECT o.parents FROM delta_resource o
        WHERE o.kind = split_part(s.resource, '/', 1) AND o.object_id = substr(s.resource, strpos(s.resource, '/') + 1) AND o.parents IS NOT NULL
        LIMIT 1
    ) d
    UNION
    SELECT p.resource, d.parents, a.depth + 1
    FROM above a
    CROSS JOIN LATERAL unnest(a.parents) AS p (resource)
    CROSS JOIN LATERAL (
        SELECT o.parents FROM delta_resource o
        WHERE o.kind = split_part(p.resource, '/', 1) AND o.object_id = substr(p.resource, strpos(p.resource, '/') + 1) AND o.parents IS NOT NULL
        LIMIT 1
    ) d
    WHERE a.depth < @deepest::integer
)
SELECT a.resource::text AS resource, a.parents::text[] AS parents FROM above a LIMIT @most::integer;

-- name: AwaitedAbove :many
-- Resources, each as kind/id, the resources that they wait for, and so on, with the state of each. is_there is false
-- for one without a row.
WITH RECURSIVE above (resource, depth) AS (
    SELECT s.resource COLLATE "C", 1 FROM unnest(@resources::text[]) AS s (resource)
    UNION
    SELECT p.resource, a.depth + 1
    FROM above a
    CROSS JOIN LATERAL (
        SELECT o.awaited_parents FROM delta_resource o
        WHERE o.kind = split_part(a.resource, '/', 1) AND o.object_id = substr(a.resource, strpos(a.resource, '/') + 1) AND o.awaited_parents IS NOT NULL
        LIMIT 1
    ) d
    CROSS JOIN LATERAL unnest(d.awaited_parents) AS p (resource)
    WHERE a.depth < @deepest::integer
)
SELECT a.resource::text AS resource, (r.id IS NOT NULL)::boolean AS is_there, coalesce(r.state, 'unknown')::delta_resource_state AS state,
    coalesce(r.sync_count > 0, FALSE)::boolean AS synced, coalesce(r.paused, FALSE)::boolean AS paused,
    coalesce((SELECT c.paused FROM delta_controller c WHERE c.name = r.kind), FALSE)::boolean AS kind_paused,
    r.awaited_parents
FROM (SELECT DISTINCT b.resource FROM above b LIMIT @most::integer) a
LEFT JOIN LATERAL (
    SELECT o.* FROM delta_resource o
    WHERE o.kind = split_part(a.resource, '/', 1) AND o.object_id = substr(a.resource, strpos(a.resource, '/') + 1)
    LIMIT 1
) r ON TRUE;

-- name: CountAwaiting :many
-- How many rows wait for parents, by kind, how many parents they wait for, and since when the first row is due.
SELECT d.kind, count(*) AS count, count(DISTINCT d.awaited_parents[1]) AS parents, min(d.due_at)::timestamptz AS oldest
FROM delta_resource d
WHERE d.awaited_parents IS NOT NULL AND d.dispatch_at IS NULL AND d.queued_at IS NULL AND NOT d.is_deleted AND NOT d.paused
GROUP BY d.kind ORDER BY d.kind;
