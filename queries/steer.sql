-- What users and operators ask for. Each is one statement; no row back means that the resource is not in a state that
-- allows it, or is not there: read it (GetResource).

-- name: InvalidateResource :one
-- synced -> expired: a new generation of the same object, at once.
UPDATE delta_resource r
SET state = 'expired', generation = r.generation + 1, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now()
WHERE r.kind = @kind AND r.object_id = @object_id AND r.state = 'synced'
RETURNING r.*;

-- name: RetryResource :one
-- degraded, or failed and waiting -> scheduled, at once: a new generation, with all of its attempts before it.
UPDATE delta_resource r
SET state = 'scheduled', generation = r.generation + 1, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now()
WHERE r.kind = @kind AND r.object_id = @object_id AND r.state IN ('degraded', 'failed')
RETURNING r.*;

-- name: SyncResource :one
-- Anything but deleted -> scheduled or expired, at once. One that waits for its first attempt, or is being worked on, keeps
-- its generation: that is the sync which was asked for.
UPDATE delta_resource r
SET state = CASE WHEN r.state IN ('scheduled', 'pending') THEN r.state WHEN r.state = 'synced' THEN 'expired' ELSE 'scheduled' END,
    generation = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.generation ELSE r.generation + 1 END,
    attempt = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.attempt ELSE 0 END,
    snoozes = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.snoozes ELSE 0 END,
    due_at = CASE WHEN r.state = 'pending' THEN r.due_at ELSE now() END,
    dispatch_at = CASE WHEN r.state = 'pending' THEN r.dispatch_at ELSE now() END
WHERE r.kind = @kind AND r.object_id = @object_id AND r.state <> 'deleted'
RETURNING r.*;

-- name: MatchingResources :many
-- A page of those that a filter chooses. What is done to them is another statement, which looks at their state again.
SELECT d.id FROM delta_resource d
WHERE d.id > @after_id
  AND d.state::text = ANY (@states::text[])
  AND (cardinality(@kinds::text[]) = 0 OR d.kind = ANY (@kinds::text[]))
  AND (cardinality(@object_ids::text[]) = 0 OR d.object_id = ANY (@object_ids::text[]))
  AND (cardinality(@namespaces::text[]) = 0 OR d.namespace = ANY (@namespaces::text[]))
  AND d.tags @> @tags::text[]
  AND d.metadata @> @labels::jsonb
ORDER BY d.id
LIMIT @batch::integer;

-- name: RetryResources :many
-- RetryResource of a set. Sets are locked in the order in which informs lock rows.
UPDATE delta_resource r
SET state = 'scheduled', generation = r.generation + 1, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now()
FROM (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state IN ('degraded', 'failed') AND d.state::text = ANY (@states::text[])
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
) chosen
WHERE r.id = chosen.id
RETURNING r.kind;

-- name: InvalidateResources :many
-- InvalidateResource of a set.
UPDATE delta_resource r
SET state = 'expired', generation = r.generation + 1, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now()
FROM (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state = 'synced'
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
) chosen
WHERE r.id = chosen.id
RETURNING r.kind;

-- name: DeleteResources :many
-- DeleteResource of a set.
UPDATE delta_resource r
SET state = 'deleted',
    generation = r.generation + 1,
    synced_generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    synced_at = now(),
    due_at = now() + CASE WHEN coalesce(n.deleted_retention, @default_retention::interval) >= '0'
        THEN coalesce(n.deleted_retention, @default_retention::interval) END,
    dispatch_at = now()
FROM (
    SELECT d.id, d.namespace FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state <> 'deleted' AND d.state::text = ANY (@states::text[])
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
) chosen
LEFT JOIN delta_namespace n ON n.name = chosen.namespace
WHERE r.id = chosen.id
RETURNING r.*;

-- name: DeleteResource :one
-- Anything -> deleted: a new generation, so that a result of Work that still runs finds nothing to write to. The row is
-- removed when its retention has passed.
UPDATE delta_resource r
SET state = 'deleted',
    generation = r.generation + 1,
    synced_generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    synced_at = now(),
    due_at = now() + rest.period,
    dispatch_at = now()
FROM (
    SELECT CASE WHEN s.retention >= '0' THEN s.retention END AS period
    FROM (
        SELECT coalesce(max(n.deleted_retention), @default_retention::interval) AS retention
        FROM delta_namespace n JOIN delta_resource d ON d.namespace = n.name
        WHERE d.kind = @kind AND d.object_id = @object_id
    ) s
) rest
WHERE r.kind = @kind AND r.object_id = @object_id AND r.state <> 'deleted'
RETURNING r.*;

-- name: PauseResource :one
-- A paused resource is not worked on; what is informed of it is kept. Resumed, it goes on where it stands. One that is pending
-- may have lost its worker meanwhile, and with the pause its workflow.
UPDATE delta_resource r
SET paused = @paused,
    dispatch_at = CASE WHEN NOT @paused::boolean AND (r.due_at IS NOT NULL OR r.state = 'pending') THEN greatest(r.due_at, now()) ELSE r.dispatch_at END
WHERE r.kind = @kind AND r.object_id = @object_id
RETURNING r.*;

-- name: PauseKind :exec
-- Pauses or resumes all Work of a kind.
INSERT INTO delta_controller (name, inform_interval, paused) VALUES (@name, '0', @paused)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = now();

-- name: ResumeDue :exec
-- Dispatches what came due, or lost its worker, while its kind was paused, and whose workflow has ended. Locked in the order in
-- which informs lock rows.
UPDATE delta_resource r SET dispatch_at = now()
FROM (
    SELECT d.id FROM delta_resource d
    WHERE d.kind = @kind AND d.dispatch_at IS NOT NULL AND NOT d.paused
      AND (d.state = 'pending' OR (d.due_at <= now() AND d.state IN ('scheduled', 'expired', 'failed')))
    ORDER BY d.object_id
    FOR NO KEY UPDATE
) chosen
WHERE r.id = chosen.id;

-- name: PauseInformer :exec
INSERT INTO delta_controller (name, inform_interval, inform_paused) VALUES (@name, '0', @paused)
ON CONFLICT (name) DO UPDATE SET inform_paused = excluded.inform_paused, updated_at = now();
