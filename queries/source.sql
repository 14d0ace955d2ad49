-- Sources, which feed the objects of a kind from another system.

-- name: ClaimSource :one
-- Begins a run. Writes of earlier runs are refused from here on.
INSERT INTO delta_source AS s (kind, name, epoch, runner) VALUES (@kind, @name, 1, @runner)
ON CONFLICT (kind, name) DO UPDATE
SET epoch = s.epoch + 1, runner = excluded.runner, started_at = now(), seen_at = now(), phase = excluded.phase, phase_at = now(), reason = excluded.reason
RETURNING s.epoch, s.position, s.failures, s.caught_up_at;

-- name: RenewSource :execrows
-- Notes that a run is alive, and its state. A run that has lasted for a while resets the count of failures.
UPDATE delta_source
SET seen_at = now(),
    failures = CASE WHEN started_at < now() - @well_after::interval THEN 0 ELSE failures END,
    error = CASE WHEN started_at < now() - @well_after::interval THEN NULL ELSE error END,
    phase = @phase, phase_at = @phase_at, reason = @reason, caught_up_at = coalesce(least(sqlc.narg('caught_up_at')::timestamptz, now()), caught_up_at),
    behind_bytes = sqlc.narg('behind_bytes')::bigint, behind_messages = sqlc.narg('behind_messages')::bigint
WHERE kind = @kind AND name = @name AND epoch = @epoch;

-- name: AdvanceSource :one
-- Locks the run's right to write for the rest of the transaction, and moves the position, if one is given. No row means
-- that another run has begun. A client that is cut off from Postgres would keep the lock, and so delay the next run,
-- until TCP gives up: idle_timeout, in milliseconds, bounds that.
UPDATE delta_source
SET seen_at = now(), written_at = now(), position = coalesce(sqlc.narg('position'), position),
    phase = @phase, phase_at = @phase_at, reason = @reason, caught_up_at = coalesce(least(sqlc.narg('caught_up_at')::timestamptz, now()), caught_up_at),
    behind_bytes = sqlc.narg('behind_bytes')::bigint, behind_messages = sqlc.narg('behind_messages')::bigint
WHERE kind = @kind AND name = @name AND epoch = @epoch
RETURNING set_config('idle_in_transaction_session_timeout', @idle_timeout, TRUE);

-- name: FailSource :execrows
UPDATE delta_source SET failures = failures + 1, failed_at = now(), error = @error::text
WHERE kind = @kind AND name = @name AND epoch = @epoch;

-- name: ListSources :many
-- silent reports that nothing was heard of a source for long, quiet that nothing was for longer than a source that
-- writes no page is quiet.
SELECT sqlc.embed(s), (s.seen_at < now() - @silent_after::interval)::boolean AS silent, (s.seen_at < now() - @quiet_after::interval)::boolean AS quiet,
    greatest(now() - coalesce(s.caught_up_at, now()), '0')::interval AS lag
FROM delta_source s ORDER BY s.kind, s.name;

-- name: IsDeletionApproved :one
-- Reports whether an operator has approved the deletions that listings of a kind ask for.
SELECT EXISTS (SELECT FROM delta_withheld WHERE kind = @kind AND shard = '' AND decision = 'approved');

-- name: DeleteGone :many
-- Anything -> deleted, as DeleteResources, for objects that a source reports as gone. The cause is that of a listing,
-- so that an object that appears again comes back.
WITH chosen AS MATERIALIZED (
    SELECT d.id, delta_unfinalized(d.kind) AS finalized, CASE WHEN @logs::boolean THEN d.synced_object END AS synced_object FROM delta_resource d
    WHERE d.kind = @kind AND d.object_id = ANY (@object_ids::text[]) AND d.state <> 'deleted'
    ORDER BY d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = 'deleted',
    cause = 'unlisted',
    finalized = c.finalized,
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
    due_at = now() + CASE WHEN c.finalized IS FALSE THEN '0' ELSE delta_retention('deleted', (SELECT n FROM delta_namespace n WHERE n.name = r.namespace), '0', '0', @default_retention::interval) END,
    dispatch_at = now(),
    queued_at = CASE WHEN c.finalized IS FALSE THEN r.queued_at END
FROM chosen c
WHERE r.id = c.id
RETURNING sqlc.embed(r),
    CASE WHEN @logs::boolean THEN delta_append_change('deleted', r.change_xid, r.id, r.kind, r.object_id, r.namespace, r.generation, r.sync_count,
        c.synced_object, NULL, NULL, NULL) ELSE 0 END::bigint AS change_id;
