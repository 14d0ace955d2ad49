-- The second gear: what dispatch.sql and resource.sql do for one resource, for the members of a batch. Each is fenced, member
-- by member, by generation and attempt, and where the batch does not have the attempt yet by workflow_id: a member that was
-- dispatched anew is no longer the batch's.
--
-- Members are named by the ids of their rows, in the order of object ids, which is that in which informs lock rows. Each
-- statement is to probe the table once for each: what a row has to be like is wrapped in CASE, which the planner takes for
-- true of every other row. Without that it believes, of a table that is filling up, that next to none are, and compares
-- each of them with each member.

-- name: LeaseDueInBatch :many
-- LeaseDue for one batch. A row that is to be alone, or is large, is for its own workflow; so is one whose last attempt was lost with
-- its batch: that closes it.
UPDATE delta_resource r
SET dispatch_at = now() + @lease::interval,
    hashed_id = CASE WHEN @hash_ids::boolean THEN delta_hash_id(r.kind, r.object_id) END,
    workflow_id = CASE
        WHEN NOT r.alone AND pg_column_size(r.object) <= @largest::integer
            AND NOT (r.state = 'pending' AND r.attempt - r.snoozes >= r.max_attempts) THEN @batch_id::text
        WHEN @hash_ids::boolean THEN @workflow_id_prefix::text || delta_hash_id(r.kind, r.object_id)
        ELSE @workflow_id_prefix::text || r.object_id END
FROM (
    SELECT found.id FROM (SELECT unnest(ARRAY[1, 2, 3, 4, 5]::smallint[]) AS priority) p
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d
        WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at <= now()
          AND (d.held_until IS NULL OR d.held_until <= now())
        ORDER BY d.dispatch_at
        LIMIT @batch::integer
        FOR UPDATE SKIP LOCKED
    ) found
    WHERE NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND c.paused)
    LIMIT @batch::integer
) due
WHERE r.id = due.id
RETURNING r.id, r.object_id, r.hashed_id, r.namespace, r.priority, r.state, r.generation, r.dispatch_at,
    (r.workflow_id = @batch_id::text)::boolean AS batched;

-- name: ClaimAttempts :many
-- scheduled, expired, failed (all of them due) or abandoned while pending -> pending, held by the batch. dispatch_at stays
-- where it is while the lease lasts: Postgres then need not touch an index.
UPDATE delta_resource r
SET state = 'pending',
    attempt = r.attempt + 1,
    attempted_at = now(),
    due_at = NULL,
    dispatch_at = CASE WHEN r.dispatch_at > now() + @soon::interval THEN r.dispatch_at ELSE now() + @net::interval END,
    held_until = now() + @net::interval,
    errors = CASE WHEN r.state = 'pending'
        THEN delta_append_error(r.errors, jsonb_build_object('at', now(), 'attempt', r.attempt - r.snoozes, 'error', @lost::text), @max_errors)
        ELSE r.errors END
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) m
WHERE r.id = m.id AND r.generation = m.generation
  AND CASE WHEN r.workflow_id = @workflow_id::text AND NOT r.alone AND NOT r.paused
    AND r.attempt - r.snoozes < r.max_attempts
    AND (r.state = 'pending' OR (r.state IN ('scheduled', 'expired', 'failed') AND r.due_at <= now())) THEN TRUE ELSE FALSE END
  AND NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND c.paused)
RETURNING r.*;

-- name: LostMembers :many
-- An attempt was claimed, and its worker died: the last one, or the last that members lose together.
SELECT r.* FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) m
CROSS JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.id = m.id LIMIT 1) r
WHERE r.generation = m.generation AND r.workflow_id = @workflow_id::text AND NOT r.alone
  AND r.state = 'pending' AND r.attempt - r.snoozes >= least(r.max_attempts, @most::integer);

-- name: KeepHeld :exec
-- Work goes on: the members that have no result yet stay with the batch. One that somebody else has locked is kept the next
-- time: who waits while he holds other rows can be the end of an inform.
UPDATE delta_resource r
SET held_until = now() + @net::interval,
    dispatch_at = CASE WHEN r.state = 'pending' THEN now() + @net::interval ELSE r.dispatch_at END
WHERE r.id IN (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.workflow_id = @workflow_id::text AND d.held_until IS NOT NULL
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: ReleaseHeld :execrows
-- Work is over, and the rows went on meanwhile: whoever is dispatched may have them. Locked in the order in which informs lock
-- rows.
UPDATE delta_resource r
SET held_until = NULL
FROM (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.workflow_id = @workflow_id::text AND d.held_until IS NOT NULL AND d.state <> 'pending'
    ORDER BY d.object_id
    FOR NO KEY UPDATE
) released
WHERE r.id = released.id;

-- name: CompleteSyncedMany :many
-- CompleteSynced of a set. What it gives back is what it changes.
UPDATE delta_resource r
SET synced_generation = m.generation,
    sync_count = r.sync_count + 1,
    synced_at = now(),
    state = CASE WHEN r.generation = m.generation THEN 'synced' ELSE r.state END,
    due_at = CASE WHEN r.generation = m.generation THEN now() + m.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = m.generation THEN now() + m.period + @grace::interval ELSE r.dispatch_at END,
    held_until = NULL
FROM (
    SELECT i.id, i.generation, i.attempt,
        CASE WHEN coalesce(n.resource_expiry, @default_expiry::interval) > '0' THEN coalesce(n.resource_expiry, @default_expiry::interval)
            WHEN coalesce(n.synced_retention, @default_retention::interval) >= '0' THEN coalesce(n.synced_retention, @default_retention::interval)
        END AS period
    FROM (
        SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation,
            unnest(@attempts::integer[]) AS attempt, unnest(@namespaces::text[]) AS namespace
    ) i
    LEFT JOIN delta_namespace n ON n.name = i.namespace
) m
WHERE r.id = m.id
  AND ((r.generation = m.generation AND r.attempt = m.attempt AND r.state = 'pending')
    OR (r.generation > m.generation AND r.synced_generation < m.generation))
RETURNING r.id, r.generation, r.synced_generation, r.sync_count, r.synced_at, r.due_at, r.dispatch_at, r.state, r.paused;

-- name: CompleteFailedMany :many
-- CompleteFailed of a set. Each goes to its own workflow, at once, which waits for its next attempt.
UPDATE delta_resource r
SET state = CASE WHEN r.generation = m.generation THEN 'failed' ELSE r.state END,
    due_at = CASE WHEN r.generation = m.generation THEN now() + m.after ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = m.generation THEN now() ELSE r.dispatch_at END,
    alone = r.alone OR r.generation = m.generation,
    held_until = NULL,
    errors = delta_append_error(r.errors, m.error, @max_errors)
FROM (
    SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation, unnest(@attempts::integer[]) AS attempt,
        unnest(@afters::interval[]) AS after, unnest(@errors::jsonb[]) AS error
) m
WHERE r.id = m.id
  AND ((r.generation = m.generation AND r.attempt = m.attempt AND r.state = 'pending')
    OR (r.generation > m.generation AND NOT m.error = ANY (r.errors)))
RETURNING r.*;

-- name: CompleteSnoozedMany :many
-- CompleteSnoozed of a set. Those that snoozed go to their own workflows; those that were not begun are given back: the batch
-- may have them again, or another one, since the workflow may well be gone.
UPDATE delta_resource r
SET state = 'scheduled',
    snoozes = r.snoozes + 1,
    due_at = now() + m.after,
    dispatch_at = now(),
    alone = @alone::boolean,
    held_until = NULL
FROM (
    SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation, unnest(@attempts::integer[]) AS attempt,
        unnest(@afters::interval[]) AS after
) m
WHERE r.id = m.id AND r.generation = m.generation AND r.attempt = m.attempt AND r.state = 'pending'
RETURNING r.*;

-- name: CompleteDegradedMany :many
-- CompleteDegraded of a set. Each goes to its own workflow.
UPDATE delta_resource r
SET state = CASE WHEN r.generation = m.generation THEN 'degraded' ELSE r.state END,
    due_at = CASE WHEN r.generation = m.generation THEN now() + m.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = m.generation THEN now() ELSE r.dispatch_at END,
    alone = r.alone OR r.generation = m.generation,
    held_until = NULL,
    errors = delta_append_error(r.errors, m.error, @max_errors)
FROM (
    SELECT i.id, i.generation, i.attempt, i.error,
        CASE WHEN coalesce(n.degraded_retention, @default_retention::interval) >= '0'
            THEN coalesce(n.degraded_retention, @default_retention::interval) END AS period
    FROM (
        SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation,
            unnest(@attempts::integer[]) AS attempt, unnest(@namespaces::text[]) AS namespace, unnest(@errors::jsonb[]) AS error
    ) i
    LEFT JOIN delta_namespace n ON n.name = i.namespace
) m
WHERE r.id = m.id
  AND ((r.generation = m.generation AND r.attempt = m.attempt AND r.state = 'pending')
    OR (r.generation > m.generation AND NOT m.error = ANY (r.errors)))
RETURNING r.*;

-- name: CompleteDeletedMany :many
-- CompleteDeleted of a set. They rest with the batch.
UPDATE delta_resource r
SET synced_generation = m.generation,
    synced_at = now(),
    state = CASE WHEN r.generation = m.generation THEN 'deleted' ELSE r.state END,
    due_at = CASE WHEN r.generation = m.generation THEN now() + m.period ELSE r.due_at END,
    dispatch_at = CASE WHEN r.generation = m.generation THEN now() + m.period + @grace::interval ELSE r.dispatch_at END,
    held_until = NULL,
    errors = delta_append_error(r.errors, m.error, @max_errors)
FROM (
    SELECT i.id, i.generation, i.attempt, i.error,
        CASE WHEN coalesce(n.deleted_retention, @default_retention::interval) >= '0'
            THEN coalesce(n.deleted_retention, @default_retention::interval) END AS period
    FROM (
        SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation,
            unnest(@attempts::integer[]) AS attempt, unnest(@namespaces::text[]) AS namespace, unnest(@errors::jsonb[]) AS error
    ) i
    LEFT JOIN delta_namespace n ON n.name = i.namespace
) m
WHERE r.id = m.id
  AND ((r.generation = m.generation AND r.attempt = m.attempt AND r.state = 'pending')
    OR (r.generation > m.generation AND r.synced_generation < m.generation))
RETURNING r.*;

-- name: RestingMembers :many
-- When the members that still rest with the batch are due.
SELECT r.due_at, now()::timestamptz AS now
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) m
CROSS JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.id = m.id LIMIT 1) r
WHERE r.generation = m.generation AND r.workflow_id = @workflow_id::text AND NOT r.alone
  AND r.state IN ('synced', 'degraded', 'deleted') AND r.due_at IS NOT NULL;

-- name: ExpireMembers :execrows
-- ExpireResource of a set. They are dispatched anew, into batches of their own.
UPDATE delta_resource r
SET state = 'expired',
    generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    due_at = now(),
    dispatch_at = now()
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) m
WHERE r.id = m.id AND r.generation = m.generation
  AND CASE WHEN r.workflow_id = @workflow_id::text AND NOT r.alone AND r.state = 'synced' AND r.due_at <= now() THEN TRUE ELSE FALSE END
  AND coalesce((SELECT n.resource_expiry FROM delta_namespace n WHERE n.name = r.namespace), @default_expiry::interval) > '0';

-- name: RemoveMembers :execrows
-- RemoveResource of a set.
DELETE FROM delta_resource r
USING (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) m
WHERE r.id = m.id AND r.generation = m.generation
  AND CASE WHEN r.workflow_id = @workflow_id::text AND NOT r.alone AND r.due_at <= now() THEN TRUE ELSE FALSE END
  AND (
    SELECT CASE r.state
        WHEN 'synced' THEN rest.synced >= '0' AND r.synced_at + rest.synced <= now()
        WHEN 'degraded' THEN rest.degraded >= '0' AND r.attempted_at + rest.degraded <= now()
        WHEN 'deleted' THEN rest.deleted >= '0' AND r.synced_at + rest.deleted <= now()
        ELSE FALSE END
    FROM (
        SELECT
            coalesce(max(n.synced_retention), @default_synced_retention::interval) AS synced,
            coalesce(max(n.degraded_retention), @default_degraded_retention::interval) AS degraded,
            coalesce(max(n.deleted_retention), @default_deleted_retention::interval) AS deleted
        FROM delta_namespace n WHERE n.name = r.namespace
    ) rest
  );

-- name: ProlongMembers :exec
-- ProlongRest of a set.
UPDATE delta_resource r
SET due_at = kept.until,
    dispatch_at = kept.until + @grace::interval
FROM (
    SELECT d.id, CASE d.state
        WHEN 'synced' THEN CASE WHEN rest.synced >= '0' THEN d.synced_at + rest.synced END
        WHEN 'degraded' THEN CASE WHEN rest.degraded >= '0' THEN d.attempted_at + rest.degraded END
        WHEN 'deleted' THEN CASE WHEN rest.deleted >= '0' THEN d.synced_at + rest.deleted END
        END AS until
    FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) m
    JOIN delta_resource d ON d.id = m.id AND d.generation = m.generation
    CROSS JOIN LATERAL (
        SELECT
            coalesce(max(n.synced_retention), @default_synced_retention::interval) AS synced,
            coalesce(max(n.degraded_retention), @default_degraded_retention::interval) AS degraded,
            coalesce(max(n.deleted_retention), @default_deleted_retention::interval) AS deleted
        FROM delta_namespace n WHERE n.name = d.namespace
    ) rest
    WHERE CASE WHEN d.workflow_id = @workflow_id::text AND NOT d.alone AND d.state IN ('synced', 'degraded', 'deleted') AND d.due_at <= now()
        THEN TRUE ELSE FALSE END
) kept
WHERE r.id = kept.id
  AND CASE WHEN r.workflow_id = @workflow_id::text AND r.state IN ('synced', 'degraded', 'deleted') AND r.due_at <= now() THEN TRUE ELSE FALSE END;
