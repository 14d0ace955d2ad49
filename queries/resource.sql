-- Each query is one legal transition of a resource, fenced by what it starts from. No row back means that the row was
-- elsewhere already: read it (GetResource) and go on from there.

-- name: GetResource :one
SELECT sqlc.embed(r), now()::timestamptz AS now FROM delta_resource r WHERE r.kind = @kind AND r.object_id = @object_id;

-- name: ClaimAttempt :one
-- scheduled, expired, failed (all of them due) or abandoned while pending -> pending.
-- An abandoned attempt is one whose worker died: it is kept as an error and counts. From here to synced the row stays with
-- its own workflow, out of batches. Where that is another one (object ids were not hashed before, say, and the workflow of the
-- plain id still waits), only it can tell that its worker died.
UPDATE delta_resource r
SET state = 'pending',
    attempt = r.attempt + 1,
    attempted_at = now(),
    due_at = NULL,
    dispatch_at = greatest(r.dispatch_at, now() + @net::interval),
    alone = TRUE,
    held_until = NULL,
    workflow_id = coalesce(nullif(@workflow_id::text, ''), r.workflow_id),
    errors = CASE WHEN r.state = 'pending'
        THEN delta_append_error(r.errors, jsonb_build_object('at', now(), 'attempt', r.attempt - r.snoozes, 'error', @lost::text), @max_errors)
        ELSE r.errors END
WHERE r.kind = @kind AND r.object_id = @object_id
  AND r.attempt - r.snoozes < r.max_attempts
  AND ((r.state = 'pending' AND (NOT r.alone OR r.workflow_id IS NULL OR @workflow_id IN ('', r.workflow_id)))
    OR (r.state IN ('scheduled', 'expired', 'failed') AND r.due_at <= now()))
  AND NOT r.paused AND NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = r.kind AND c.paused)
  AND (r.held_until IS NULL OR r.held_until <= now())
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: CompleteSynced :one
-- pending -> synced. Where the row went on to a newer generation, only what was synced is recorded. The row is named by its id:
-- one that was removed meanwhile and made anew has the same generations and attempts.
UPDATE delta_resource r
SET synced_generation = @generation,
    sync_count = r.sync_count + 1,
    synced_at = now(),
    state = CASE WHEN r.generation = @generation THEN 'synced' ELSE r.state END,
    alone = r.alone AND r.generation <> @generation,
    due_at = CASE WHEN r.generation = @generation THEN now() + rest.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = @generation THEN now() + rest.period + @grace::interval ELSE r.dispatch_at END
FROM (
    SELECT CASE WHEN s.expiry > '0' THEN s.expiry WHEN s.retention >= '0' THEN s.retention END AS period
    FROM (
        SELECT coalesce(max(n.resource_expiry), @default_expiry::interval) AS expiry, coalesce(max(n.synced_retention), @default_retention::interval) AS retention
        FROM delta_namespace n WHERE n.name = @namespace
    ) s
) rest
WHERE r.id = @id
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
WHERE r.id = @id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending')
    OR (r.generation > @generation AND NOT @error = ANY (r.errors)))
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: CompleteSnoozed :one
-- pending -> scheduled, later: the attempt does not count. Where the row went on to a newer generation, nothing is recorded.
UPDATE delta_resource r
SET state = 'scheduled',
    snoozes = r.snoozes + 1,
    due_at = now() + @snooze_for::interval,
    dispatch_at = now() + @dispatch_after::interval
WHERE r.id = @id
  AND r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending'
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
WHERE r.id = @id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending')
    OR (r.generation > @generation AND NOT @error = ANY (r.errors)))
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
WHERE r.id = @id
  AND ((r.generation = @generation AND r.attempt = @attempt AND r.state = 'pending')
    OR (r.generation > @generation AND r.synced_generation < @generation))
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: ExpireResource :one
-- synced and due, in a namespace whose resources expire -> expired: a new generation of the same object.
UPDATE delta_resource r
SET state = 'expired',
    generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    due_at = now(),
    dispatch_at = now() + @net::interval
WHERE r.kind = @kind AND r.object_id = @object_id
  AND r.generation = @generation AND r.state = 'synced' AND r.due_at <= now()
  AND coalesce((SELECT n.resource_expiry FROM delta_namespace n WHERE n.name = r.namespace), @default_expiry::interval) > '0'
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: RemoveResource :one
-- synced, degraded or deleted and due -> gone, if the retention that holds now has passed too.
DELETE FROM delta_resource r
USING (
    SELECT
        coalesce(max(n.synced_retention), @default_synced_retention::interval) AS synced,
        coalesce(max(n.degraded_retention), @default_degraded_retention::interval) AS degraded,
        coalesce(max(n.deleted_retention), @default_deleted_retention::interval) AS deleted
    FROM delta_namespace n WHERE n.name = @namespace
) rest
WHERE r.kind = @kind AND r.object_id = @object_id AND r.generation = @generation AND r.namespace = @namespace AND r.due_at <= now()
  AND CASE r.state
    WHEN 'synced' THEN rest.synced >= '0' AND r.synced_at + rest.synced <= now()
    WHEN 'degraded' THEN rest.degraded >= '0' AND r.attempted_at + rest.degraded <= now()
    WHEN 'deleted' THEN rest.deleted >= '0' AND r.synced_at + rest.deleted <= now()
    ELSE FALSE END
RETURNING sqlc.embed(r), now()::timestamptz AS now;

-- name: ProlongRest :one
-- synced, degraded or deleted and due, but to be kept for longer, by settings that were changed since: due later, or never.
UPDATE delta_resource r
SET due_at = kept.until,
    dispatch_at = kept.until + @grace::interval
FROM (
    SELECT d.id, CASE d.state
        WHEN 'synced' THEN CASE WHEN rest.synced >= '0' THEN d.synced_at + rest.synced END
        WHEN 'degraded' THEN CASE WHEN rest.degraded >= '0' THEN d.attempted_at + rest.degraded END
        WHEN 'deleted' THEN CASE WHEN rest.deleted >= '0' THEN d.synced_at + rest.deleted END
        END AS until
    FROM delta_resource d, (
        SELECT
            coalesce(max(n.synced_retention), @default_synced_retention::interval) AS synced,
            coalesce(max(n.degraded_retention), @default_degraded_retention::interval) AS degraded,
            coalesce(max(n.deleted_retention), @default_deleted_retention::interval) AS deleted
        FROM delta_namespace n WHERE n.name = @namespace
    ) rest
    WHERE d.kind = @kind AND d.object_id = @object_id
) kept
WHERE r.id = kept.id AND r.generation = @generation AND r.state IN ('synced', 'degraded', 'deleted') AND r.due_at <= now()
RETURNING sqlc.embed(r), now()::timestamptz AS now;
