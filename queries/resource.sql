-- Each query is one legal transition of a resource, fenced by what it starts from. No row back means that the row was
-- elsewhere already: read it (GetResource) and go on from there.

-- name: GetResource :one
SELECT sqlc.embed(r), now()::timestamptz AS now FROM delta_resource r WHERE r.kind = @kind AND r.object_id = @object_id;

-- name: ClaimAttempt :one
-- scheduled, expired, failed (and due) or abandoned while pending -> pending.
-- An abandoned attempt is one whose worker died: it is kept as an error and counts.
UPDATE delta_resource r
SET state = 'pending',
    attempt = r.attempt + 1,
    attempted_at = now(),
    due_at = NULL,
    dispatch_at = greatest(r.dispatch_at, now() + @net::interval),
    errors = CASE WHEN r.state = 'pending'
        THEN delta_append_error(r.errors, jsonb_build_object('at', now(), 'attempt', r.attempt, 'error', @lost::text), @max_errors)
        ELSE r.errors END
WHERE r.kind = @kind AND r.object_id = @object_id
  AND r.attempt < r.max_attempts
  AND (r.state IN ('scheduled', 'expired', 'pending') OR (r.state = 'failed' AND r.due_at <= now()))
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: CompleteSynced :one
-- pending -> synced. Where the row went on to a newer generation, only what was synced is recorded.
UPDATE delta_resource r
SET synced_generation = @generation,
    synced_at = now(),
    state = CASE WHEN r.generation = @generation THEN 'synced' ELSE r.state END,
    due_at = CASE WHEN r.generation = @generation THEN now() + rest.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = @generation THEN now() + rest.period + @grace::interval ELSE r.dispatch_at END
FROM (
    SELECT CASE WHEN s.expiry > '0' THEN s.expiry WHEN s.retention >= '0' THEN s.retention END AS period
    FROM (
        SELECT coalesce(max(n.resource_expiry), @default_expiry::interval) AS expiry, coalesce(max(n.synced_retention), @default_retention::interval) AS retention
        FROM delta_namespace n WHERE n.name = @namespace
    ) s
) rest
WHERE r.kind = @kind AND r.object_id = @object_id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending')
    OR (r.generation > @generation AND r.synced_generation < @generation))
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: CompleteFailed :one
-- pending -> failed, to be tried again. Where the row went on to a newer generation, only the error is recorded.
UPDATE delta_resource r
SET state = CASE WHEN r.generation = @generation THEN 'failed' ELSE r.state END,
    due_at = CASE WHEN r.generation = @generation THEN now() + @retry_after::interval ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = @generation THEN now() + @dispatch_after::interval ELSE r.dispatch_at END,
    errors = delta_append_error(r.errors, @error, @max_errors)
WHERE r.kind = @kind AND r.object_id = @object_id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending') OR r.generation > @generation)
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: CompleteDegraded :one
-- pending -> degraded: the last attempt failed.
UPDATE delta_resource r
SET state = CASE WHEN r.generation = @generation THEN 'degraded' ELSE r.state END,
    due_at = CASE WHEN r.generation = @generation THEN now() + rest.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = @generation THEN now() + rest.period + @grace::interval ELSE r.dispatch_at END,
    errors = delta_append_error(r.errors, @error, @max_errors)
FROM (
    SELECT CASE WHEN s.retention >= '0' THEN s.retention END AS period
    FROM (
        SELECT coalesce(max(n.degraded_retention), @default_retention::interval) AS retention
        FROM delta_namespace n WHERE n.name = @namespace
    ) s
) rest
WHERE r.kind = @kind AND r.object_id = @object_id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending') OR r.generation > @generation)
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: CompleteDeleted :one
-- pending -> deleted: Work found that the object is gone outside.
UPDATE delta_resource r
SET synced_generation = @generation,
    synced_at = now(),
    state = CASE WHEN r.generation = @generation THEN 'deleted' ELSE r.state END,
    due_at = CASE WHEN r.generation = @generation THEN now() + rest.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = @generation THEN now() + rest.period + @grace::interval ELSE r.dispatch_at END,
    errors = delta_append_error(r.errors, @error, @max_errors)
FROM (
    SELECT CASE WHEN s.retention >= '0' THEN s.retention END AS period
    FROM (
        SELECT coalesce(max(n.deleted_retention), @default_retention::interval) AS retention
        FROM delta_namespace n WHERE n.name = @namespace
    ) s
) rest
WHERE r.kind = @kind AND r.object_id = @object_id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending')
    OR (r.generation > @generation AND r.synced_generation < @generation))
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: ExpireResource :one
-- synced and due, in a namespace whose resources expire -> expired: a new generation of the same object.
UPDATE delta_resource r
SET state = 'expired',
    generation = r.generation + 1,
    attempt = 0,
    due_at = now(),
    dispatch_at = now() + @net::interval
WHERE r.kind = @kind AND r.object_id = @object_id
  AND r.generation = @generation AND r.state = 'synced' AND r.due_at <= now()
  AND coalesce((SELECT n.resource_expiry FROM delta_namespace n WHERE n.name = r.namespace), @default_expiry::interval) > '0'
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: RemoveResource :one
-- synced, degraded or deleted and due -> gone.
DELETE FROM delta_resource r
WHERE r.kind = @kind AND r.object_id = @object_id
  AND r.generation = @generation AND r.state IN ('synced', 'degraded', 'deleted') AND r.due_at <= now()
RETURNING sqlc.embed(r), now()::timestamptz AS now;
