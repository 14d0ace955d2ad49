-- Outcomes of Work.

-- name: WriteOutcomes :many
-- pending -> synced, failed, degraded, deleted, or scheduled (snoozed, or released), fenced by the claim. A row that
-- went on to a newer generation keeps its state, and only the synced generation, or the error, is recorded. Rows are
-- named by their ids, because a row that was removed and inserted again has the same generations and attempts.
--
-- An outcome of Finalize leaves the row deleted: it is finalized by 'deleted', and waits for the next attempt after
-- 'failed' and 'scheduled'. A row that becomes deleted is due at once if its kind has a Finalizer.
--
-- Locked rows are skipped, and the caller repeats them: no other outcome waits for them.
--
-- delay is for failed and scheduled. counted is false for an attempt that does not count. grace is how long after
-- due_at a dispatcher looks at a row with a timer in its workflow; if it is negative, the dispatcher looks at once.
-- kept leaves the claim open. continues is set by a workflow that goes on with a newer generation by itself.
--
-- Where the kind touches others, a row that was synced with another object than the last time is noted for its children
-- (delta_touch). A row that went on is not noted; its new generation will be. Its hash is unknown then, as after a
-- deletion, so that it is noted the next time in any case.
--
-- Where the kind logs its changes, settled steps are appended to delta_change, with the worked object: where the row
-- went on, that is the given one. A kind without a log gives no objects, and costs a test of a parameter.
WITH o AS MATERIALIZED (
    SELECT i.id, i.generation, i.state, i.cause, i.counted, i.snoozed, i.grace, i.kept, i.error, l.current, l.finalizing, l.finalized,
        i.state IN ('synced', 'deleted') AND l.synced_generation < i.generation AS reached,
        i.object, i.carrier, l.synced_object, l.touching,
        l.touching AND l.current AND i.state = 'synced' AND l.synced_generation < i.generation AND l.hash IS DISTINCT FROM l.touched_hash AS touches,
        CASE
            WHEN NOT @logs::boolean THEN NULL
            WHEN l.finalizing THEN CASE WHEN l.current AND i.state = 'deleted' THEN 'finalized' END
            WHEN i.state = 'degraded' THEN CASE WHEN l.current THEN 'failed' END
            WHEN l.synced_generation >= i.generation THEN NULL
            WHEN i.state = 'synced' THEN CASE WHEN l.sync_count = 0 THEN 'created' ELSE 'updated' END
            WHEN i.state = 'deleted' THEN 'deleted'
        END AS change,
        CASE WHEN i.state IN ('failed', 'scheduled') THEN i.delay
            WHEN i.state = 'deleted' AND l.finalized IS FALSE THEN '0'
            ELSE delta_next_step(i.state, i.cause, n, @default_expiry::interval, @degraded_retry::interval, @earlier::double precision,
                @default_synced_retention::interval, @default_degraded_retention::interval, @default_deleted_retention::interval) END AS period
    FROM (
        SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation, unnest(@states::text[])::delta_resource_state AS state,
            nullif(unnest(@causes::text[]), '')::delta_cause AS cause,
            unnest(@delays::interval[]) AS delay, unnest(@counted::boolean[]) AS counted, unnest(@snoozed::boolean[]) AS snoozed,
            unnest(@graces::interval[]) AS grace, unnest(@kept::boolean[]) AS kept, nullif(unnest(@errors::text[]), '')::jsonb AS error,
            unnest(@objects::text[]) AS object, nullif(unnest(@carriers::text[]), '') AS carrier
    ) i
    CROSS JOIN LATERAL (
        SELECT d.generation = i.generation AS current, (SELECT delta_is_touching(@kind::text)) AS touching, d.hash, d.touched_hash, d.namespace, d.synced_generation, d.state = 'deleted' AS finalizing, d.sync_count,
            CASE WHEN @logs::boolean THEN d.synced_object END AS synced_object,
            CASE WHEN d.state = 'deleted' THEN i.state = 'deleted' WHEN i.state = 'deleted' THEN delta_unfinalized(d.kind) END AS finalized
        FROM delta_resource d
        WHERE d.id = i.id AND d.claim = @claim::uuid AND d.claimed_until IS NOT NULL
          AND (d.generation > i.generation OR (d.generation = i.generation AND delta_is_worked(d.state, d.finalized, d.due_at)))
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
    LEFT JOIN delta_namespace n ON n.name = l.namespace
)
UPDATE delta_resource r
SET state = CASE WHEN o.current AND NOT o.finalizing THEN o.state ELSE r.state END,
    finalized = CASE WHEN o.current AND (o.finalizing OR o.state = 'deleted') THEN o.finalized ELSE r.finalized END,
    -- A revived row leaves delta_resource_unlisted_idx.
    cause = CASE WHEN o.current AND NOT o.finalizing AND o.state = 'synced' THEN NULL WHEN o.current AND NOT o.finalizing THEN coalesce(o.cause, r.cause) ELSE r.cause END,
    attempt = CASE WHEN o.current AND NOT o.finalizing AND o.finalized IS FALSE THEN 0 WHEN o.current AND NOT o.counted THEN greatest(r.attempt - 1, 0) ELSE r.attempt END,
    snoozes = CASE WHEN o.current AND o.snoozed THEN r.snoozes + 1 ELSE r.snoozes END,
    synced_generation = CASE WHEN o.reached THEN o.generation ELSE r.synced_generation END,
    sync_count = CASE WHEN o.reached AND o.state = 'synced' THEN r.sync_count + 1 ELSE r.sync_count END,
    synced_at = CASE WHEN o.reached THEN now() ELSE r.synced_at END,
    touched_hash = CASE
        WHEN NOT o.touching THEN NULL
        WHEN o.reached AND o.current AND o.state = 'synced' THEN r.hash
        WHEN o.reached THEN NULL
        ELSE r.touched_hash END,
    due_at = CASE WHEN o.current THEN now() + o.period ELSE r.due_at END,
    dispatch_at = CASE
        WHEN o.current AND NOT o.finalizing AND o.finalized IS FALSE AND NOT @continues::boolean THEN now()
        WHEN o.current AND o.grace >= '0' THEN now() + o.period + o.grace
        WHEN o.current THEN now()
        WHEN r.dispatch_at IS NULL OR r.due_at > now() THEN r.dispatch_at
        WHEN @continues::boolean THEN now() + @lease::interval
        ELSE now() END,
    -- A row that a dispatcher should give to another workflow leaves its batch.
    workflow_id = CASE WHEN o.current AND o.grace < '0' AND NOT @continues::boolean THEN NULL ELSE r.workflow_id END,
    claimed_until = CASE WHEN o.kept THEN r.claimed_until END,
    slot_key = CASE WHEN o.kept THEN r.slot_key END,
    slot_until = NULL,
    written_by = pg_current_xact_id(),
    change_xid = CASE WHEN o.change IS NULL THEN r.change_xid ELSE delta_order_xid(r.change_xid) END,
    -- A deleted row keeps it until it is finalized, so that the entry of that step has it too.
    synced_object = CASE
        WHEN NOT @logs::boolean THEN NULL
        WHEN o.change IN ('created', 'updated') THEN CASE WHEN o.current THEN r.object ELSE o.object::jsonb END
        WHEN o.change = 'finalized' OR (o.change = 'deleted' AND NOT o.current) THEN NULL
        ELSE r.synced_object END,
    errors = CASE WHEN o.error IS NULL OR o.error = ANY (r.errors) THEN r.errors ELSE delta_append_error(r.errors, o.error, @max_errors) END
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[])
RETURNING r.id, r.generation, r.synced_generation, r.sync_count, r.synced_at, r.due_at, r.dispatch_at, r.claimed_until, r.state, r.cause, r.finalized, r.attempt,
    r.snoozes, r.paused, now()::timestamptz AS now,
    CASE WHEN o.change IS NOT NULL THEN delta_append_change(o.change, r.change_xid, r.id, r.kind, r.object_id, r.namespace, o.generation, r.sync_count,
        o.synced_object,
        CASE WHEN o.change IN ('created', 'updated', 'failed') THEN CASE WHEN o.current THEN r.object ELSE o.object::jsonb END END,
        o.error ->> 'error', o.carrier) ELSE 0 END::bigint AS change_id,
    CASE WHEN o.touches THEN delta_note_touch(r.kind, r.object_id) ELSE 0 END::bigint AS noted_touches;

-- name: StandingOutcomes :many
-- Rows with outcomes that a statement did not write, if their latest claim is this one: open is a row that was locked,
-- and can still be written. The others hold their outcome already: only the answer was lost.
SELECT r.id, r.generation, r.synced_generation, r.sync_count, r.synced_at, r.due_at, r.dispatch_at, r.claimed_until, r.state, r.cause, r.finalized, r.attempt,
    r.snoozes, r.paused, now()::timestamptz AS now,
    (r.claimed_until IS NOT NULL AND (r.generation > i.generation OR (r.generation = i.generation AND delta_is_worked(r.state, r.finalized, r.due_at))))::boolean AS open
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation) i
CROSS JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.id = i.id LIMIT 1) r
WHERE r.claim = @claim::uuid;

-- name: LockResource :exec
-- Waits until no other transaction holds a lock on the row. It is called in a user's transaction that will complete the
-- attempt.
SELECT FROM delta_resource WHERE id = @id FOR NO KEY UPDATE;
