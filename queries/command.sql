-- Commands of users and operators, for one resource or many, each in one statement. Rows are named by their ids, and are locked in the
-- order in which informs lock rows, in a statement of their own: a subselect in the WHERE clause may be run again, when a row has
-- changed meanwhile, and would lock further rows out of order. No row back means that the resource is not in a state that allows it, or is gone: read it.

-- name: MatchingResources :many
-- A page of the resources that a filter selects. The command is another statement, which checks their state again.
SELECT d.id FROM delta_resource d
WHERE d.id > @after_id AND delta_is_chosen(d, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb,
    @error::text)
ORDER BY d.id
LIMIT @batch::integer;

-- name: MatchingLate :many
-- MatchingResources for late ones: all late ones are looked at for a page, or only those with some ids.
SELECT d.id FROM delta_resource d
WHERE d.id = ANY (ARRAY(SELECT l.id FROM delta_late(@kinds::text[], sqlc.narg('ids')::bigint[], @grace::interval, @longest::interval, NULL) AS l)) AND d.id > @after_id AND delta_is_chosen(d, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb,
    @error::text)
ORDER BY d.id
LIMIT @batch::integer;

-- name: CountMatchingResources :one
-- How many resources MatchingResources returns page by page; it stops at most.
SELECT count(*) FROM (
    SELECT FROM delta_resource d
    WHERE delta_is_chosen(d, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb, @error::text)
    LIMIT @most::integer
) m;

-- name: CountMatchingLate :one
SELECT count(*) FROM (
    SELECT FROM delta_resource d
    WHERE d.id = ANY (ARRAY(SELECT l.id FROM delta_late(@kinds::text[], NULL, @grace::interval, @longest::interval, NULL) AS l)) AND delta_is_chosen(d, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb, @error::text)
    LIMIT @most::integer
) m;

-- name: RetryResources :many
-- degraded, or failed and waiting -> scheduled, at once: a new generation, with the attempt counter reset.
WITH chosen AS MATERIALIZED (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state IN ('degraded', 'failed') AND d.state::text = ANY (@states::text[])
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = 'scheduled', generation = r.generation + 1, generation_at = now(), carrier = NULL, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now(),
    written_by = pg_current_xact_id()
FROM chosen c
WHERE r.id = c.id
RETURNING r.*;

-- name: InvalidateResources :many
-- synced -> expired, at once: a new generation of the same object.
WITH chosen AS MATERIALIZED (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state = 'synced'
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = 'expired', generation = r.generation + 1, generation_at = now(), carrier = NULL, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now(),
    written_by = pg_current_xact_id()
FROM chosen c
WHERE r.id = c.id
RETURNING r.*;

-- name: SyncResources :many
-- Anything but deleted -> scheduled or expired, at once. A row that waits for its first attempt, or is being worked,
-- keeps its generation, because that sync is the one that the command asks for.
WITH chosen AS MATERIALIZED (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state <> 'deleted'
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = CASE WHEN r.state IN ('scheduled', 'pending') THEN r.state WHEN r.state = 'synced' THEN 'expired' ELSE 'scheduled' END,
    generation = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.generation ELSE r.generation + 1 END,
    generation_at = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.generation_at ELSE now() END,
    carrier = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.carrier END,
    attempt = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.attempt ELSE 0 END,
    snoozes = CASE WHEN r.state IN ('scheduled', 'pending', 'expired') THEN r.snoozes ELSE 0 END,
    due_at = CASE WHEN r.state = 'pending' THEN r.due_at ELSE now() END,
    dispatch_at = CASE WHEN r.state = 'pending' THEN r.dispatch_at ELSE now() END,
    written_by = pg_current_xact_id()
FROM chosen c
WHERE r.id = c.id
RETURNING r.*;

-- name: TouchResources :many
-- Anything but deleted -> scheduled or expired, at once: something has changed outside, and what Work has read may be older than that. So one
-- that is being worked on gets a new generation, and is worked again after that. One that waits for Work keeps its own.
WITH chosen AS MATERIALIZED (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state <> 'deleted' AND d.state::text = ANY (@states::text[])
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = CASE WHEN r.state IN ('synced', 'expired') THEN 'expired' ELSE 'scheduled' END::delta_resource_state,
    generation = CASE WHEN r.state IN ('scheduled', 'expired') THEN r.generation ELSE r.generation + 1 END,
    generation_at = CASE WHEN r.state IN ('scheduled', 'expired') THEN r.generation_at ELSE now() END,
    carrier = CASE WHEN r.state IN ('scheduled', 'expired') THEN r.carrier END,
    attempt = CASE WHEN r.state IN ('scheduled', 'expired') THEN r.attempt ELSE 0 END,
    snoozes = CASE WHEN r.state IN ('scheduled', 'expired') THEN r.snoozes ELSE 0 END,
    due_at = now(),
    dispatch_at = now(),
    written_by = pg_current_xact_id()
FROM chosen c
WHERE r.id = c.id
RETURNING r.*;

-- name: DeleteResources :many
-- Anything -> deleted: a new generation, so that a result of Work that still runs finds nothing to write to. The row is finalized, if its kind
-- has that, and removed when its retention has passed.
WITH chosen AS MATERIALIZED (
    SELECT d.id, delta_unfinalized(d.kind) AS finalized, d.synced_object, delta_logs_changes(d.kind) AS logs FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state <> 'deleted' AND d.state::text = ANY (@states::text[])
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = 'deleted',
    cause = 'command',
    finalized = c.finalized,
    generation = r.generation + 1,
    generation_at = now(),
    carrier = NULL,
    synced_generation = r.generation + 1,
    attempt = 0,
    snoozes = 0,
    synced_at = now(),
    touched_hash = NULL,
    change_xid = CASE WHEN c.logs THEN delta_order_xid(r.change_xid) ELSE r.change_xid END,
    written_by = pg_current_xact_id(),
    due_at = now() + CASE WHEN c.finalized IS FALSE THEN '0' ELSE delta_retention('deleted', (SELECT n FROM delta_namespace n WHERE n.name = r.namespace), '0', '0', @default_retention::interval) END,
    dispatch_at = now(),
    queued_at = CASE WHEN c.finalized IS FALSE THEN r.queued_at END
FROM chosen c
WHERE r.id = c.id
RETURNING sqlc.embed(r),
    CASE WHEN c.logs THEN delta_append_change('deleted', r.change_xid, r.id, r.kind, r.object_id, r.namespace, r.generation, r.sync_count,
        c.synced_object, NULL, NULL, NULL) ELSE 0 END::bigint AS change_id;

-- name: ReviveResources :many
-- deleted -> scheduled, at once: a new generation of the same object.
WITH chosen AS MATERIALIZED (
    SELECT d.id, delta_logs_changes(d.kind) AS logs FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.state = 'deleted'
    ORDER BY d.kind, d.object_id
    FOR NO KEY UPDATE
)
UPDATE delta_resource r
SET state = 'scheduled', generation = r.generation + 1, generation_at = now(), carrier = NULL, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now(),
    change_xid = CASE WHEN c.logs THEN delta_order_xid(r.change_xid) ELSE r.change_xid END,
    synced_object = NULL,
    written_by = pg_current_xact_id()
FROM chosen c
WHERE r.id = c.id
RETURNING sqlc.embed(r),
    CASE WHEN c.logs THEN delta_append_change('revived', r.change_xid, r.id, r.kind, r.object_id, r.namespace, r.generation, r.sync_count,
        NULL, r.object, NULL, NULL) ELSE 0 END::bigint AS change_id;

-- name: PauseResource :one
-- A paused resource is not worked, and informs of it are kept. When it is resumed, it goes on where it stands. A row
-- that is due, or was pending, may have lost its workflow meanwhile.
UPDATE delta_resource r
SET paused = @paused,
    written_by = pg_current_xact_id(),
    dispatch_at = CASE WHEN NOT @paused::boolean AND (r.due_at IS NOT NULL OR delta_is_worked(r.state, r.finalized, r.due_at)) THEN greatest(r.due_at, now()) ELSE r.dispatch_at END
WHERE r.kind = @kind AND r.object_id = @object_id
RETURNING r.*;

-- name: PauseKind :exec
-- Pauses or resumes all Work of a kind. Resuming also ends a snooze.
INSERT INTO delta_controller AS c (name, inform_interval, paused) VALUES (@name, '0', @paused)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, snoozed_until = CASE WHEN excluded.paused THEN c.snoozed_until END, updated_at = now();

-- name: SnoozeKind :exec
-- No Work of a kind begins for some time, because an attempt asked for that. A shorter snooze does not shorten a longer
-- one.
INSERT INTO delta_controller AS c (name, inform_interval, snoozed_until, snooze_spread)
VALUES (@kind, '0', now() + sqlc.arg('for')::interval, @spread::interval)
ON CONFLICT (name) DO UPDATE SET snoozed_until = excluded.snoozed_until, snooze_spread = excluded.snooze_spread
WHERE c.snoozed_until IS NULL OR c.snoozed_until < excluded.snoozed_until;

-- name: SnoozeNamespace :exec
-- SnoozeKind for a namespace, across kinds.
INSERT INTO delta_namespace AS n (name, snoozed_until, snooze_spread)
VALUES (@namespace, now() + sqlc.arg('for')::interval, @spread::interval)
ON CONFLICT (name) DO UPDATE SET snoozed_until = excluded.snoozed_until, snooze_spread = excluded.snooze_spread
WHERE n.snoozed_until IS NULL OR n.snoozed_until < excluded.snoozed_until;

-- name: WakeNamespace :one
-- Ends the snooze of a namespace, and returns how long it would have lasted.
UPDATE delta_namespace n SET snoozed_until = NULL
FROM (SELECT o.name, o.snoozed_until, o.snooze_spread FROM delta_namespace o WHERE o.name = @namespace FOR NO KEY UPDATE) o
WHERE n.name = o.name
RETURNING coalesce(greatest(o.snoozed_until + o.snooze_spread - now(), '0'), '0')::interval AS lasts;

-- name: DueForDispatch :many
-- Rows that became due while their kind or their namespace (empty for all of them) was paused or snoozed: their
-- workflows may have ended. No row is looked at later than longest from now.
SELECT d.id FROM (SELECT unnest('{1,2,3,4,5}'::smallint[]) AS priority) p
CROSS JOIN LATERAL (
    SELECT d.id FROM delta_resource d
    WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at > now() AND d.dispatch_at <= now() + @longest::interval AND NOT d.paused
      AND (@namespace::text = '' OR d.namespace = @namespace::text)
      AND (delta_is_worked(d.state, d.finalized, d.due_at) OR (d.due_at <= now() AND delta_awaits_attempt(d.state, d.finalized)))
) d
ORDER BY d.id;

-- name: DispatchNow :exec
-- Makes rows due at once. Locked rows are skipped: their lease will expire.
UPDATE delta_resource r SET dispatch_at = now()
WHERE r.id = ANY (ARRAY(
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.dispatch_at > now()
      AND (delta_is_worked(d.state, d.finalized, d.due_at) OR (d.due_at <= now() AND delta_awaits_attempt(d.state, d.finalized)))
    FOR NO KEY UPDATE SKIP LOCKED
));

-- name: PauseInformer :exec
INSERT INTO delta_controller (name, inform_interval, inform_paused) VALUES (@name, '0', @paused)
ON CONFLICT (name) DO UPDATE SET inform_paused = excluded.inform_paused, schedules_checked_at = NULL, updated_at = now();
