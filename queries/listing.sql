-- What a complete listing listed, and what it no longer lists.

-- name: RecordListed :exec
INSERT INTO delta_listing (pass, object_id) SELECT @pass, unnest(@object_ids::text[]) ON CONFLICT DO NOTHING;

-- name: CountMissing :one
-- How many resources of a kind a pass did not list, of how many there are. Those that were made, informed or
-- worked since its start are not its to know: nor is one whose Work had begun before and has made the object since.
SELECT count(*) AS total, count(*) FILTER (WHERE l.object_id IS NULL) AS missing
FROM delta_resource r
LEFT JOIN delta_listing l ON l.pass = @pass AND l.object_id = r.object_id
WHERE r.kind = @kind AND r.created_at < @started AND r.state NOT IN ('deleted', 'scheduled', 'pending')
  AND coalesce(r.attempted_at < @started, TRUE) AND coalesce(r.synced_at < @started, TRUE);

-- name: PageEnd :one
-- The last object id of the next page of a kind's resources; empty after the last page.
SELECT coalesce(max(p.object_id), '')::text AS object_id FROM (
    SELECT d.object_id FROM delta_resource d WHERE d.kind = @kind AND d.object_id > @after_object_id ORDER BY d.object_id LIMIT @page::integer
) p;

-- name: DeleteMissing :many
-- Marks those of a page deleted, locked in the order in which informs lock rows.
WITH missing AS MATERIALIZED (
    SELECT d.id, delta_unfinalized(@kind) AS finalized FROM delta_resource d
    WHERE d.kind = @kind AND d.created_at < @started AND d.state NOT IN ('deleted', 'scheduled', 'pending')
      AND coalesce(d.attempted_at < @started, TRUE) AND coalesce(d.synced_at < @started, TRUE)
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
    synced_generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    synced_at = now(),
    due_at = now() + CASE WHEN m.finalized IS FALSE THEN '0'
        ELSE delta_retention('deleted', (SELECT n FROM delta_namespace n WHERE n.name = r.namespace), '0', '0', @default_retention::interval) END,
    dispatch_at = now()
FROM missing m
WHERE r.id = m.id AND r.kind = @kind AND r.object_id > @after_object_id AND r.object_id <= @to_object_id
RETURNING r.*;

-- name: ForgetListing :exec
-- Of this pass, and of those whose worker died: nothing of them was written or awaited for long.
DELETE FROM delta_listing l WHERE l.pass = @pass
   OR (l.listed_at < now() - @older::interval
     AND l.pass <> ALL (ARRAY(SELECT DISTINCT n.pass FROM delta_listing n WHERE n.listed_at >= now() - @older::interval)));

-- name: TouchListing :exec
-- Says that a pass is still waited for.
UPDATE delta_listing SET listed_at = now() WHERE pass = @pass AND object_id = @object_id AND listed_at < now() - @older::interval;

-- name: FirstUnsettled :one
-- The first of a run's objects, from an id on, that has not settled. Those before it have, so that a wait reads a listing once.
SELECT l.object_id FROM delta_listing l
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
