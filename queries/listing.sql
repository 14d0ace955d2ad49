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

-- name: DeleteMissing :many
-- Marks a page of them deleted, locked in the order in which informs lock rows.
UPDATE delta_resource r
SET state = 'deleted',
    generation = r.generation + 1,
    synced_generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    synced_at = now(),
    due_at = now() + gone.period,
    dispatch_at = now()
FROM (
    SELECT d.id, d.generation, (SELECT CASE WHEN coalesce(max(n.deleted_retention), @default_retention::interval) >= '0'
            THEN coalesce(max(n.deleted_retention), @default_retention::interval) END
        FROM delta_namespace n WHERE n.name = d.namespace) AS period
    FROM delta_resource d
    WHERE d.kind = @kind AND d.created_at < @started AND d.state NOT IN ('deleted', 'scheduled', 'pending')
      AND coalesce(d.attempted_at < @started, TRUE) AND coalesce(d.synced_at < @started, TRUE)
      AND NOT EXISTS (SELECT FROM delta_listing l WHERE l.pass = @pass AND l.object_id = d.object_id)
    ORDER BY d.object_id
    LIMIT @batch::integer
    FOR NO KEY UPDATE
) gone
WHERE r.id = gone.id AND r.generation = gone.generation
RETURNING r.*;

-- name: ForgetListing :exec
-- Of this pass, and of those whose worker died.
DELETE FROM delta_listing WHERE pass = @pass OR listed_at < now() - @older::interval;

-- name: HasUnsettled :one
SELECT EXISTS (
    SELECT FROM delta_listing l JOIN delta_resource r ON r.kind = @kind AND r.object_id = l.object_id
    WHERE l.pass = @pass AND r.state IN ('scheduled', 'pending', 'failed', 'expired') AND NOT r.paused
      AND NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND c.paused)
) AS unsettled;

-- name: DegradedOfListing :many
SELECT r.object_id, count(*) OVER () AS total
FROM delta_listing l JOIN delta_resource r ON r.kind = @kind AND r.object_id = l.object_id
WHERE l.pass = @pass AND r.state = 'degraded'
ORDER BY r.object_id
LIMIT @most::integer;
