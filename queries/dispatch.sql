-- The outbox. A row is due when dispatch_at has passed. A dispatcher leases a batch, wakes the workflows, then settles:
-- if it dies in between, the lease runs out and another one does it again.

-- name: LeaseDue :many
-- The most urgent first, and the oldest of those. Each priority is a range of the index of its own. A kind that is paused
-- keeps its rows, and so does a batch whose Work may run.
UPDATE delta_resource r
SET dispatch_at = now() + @lease::interval,
    hashed_id = CASE WHEN @hash_ids::boolean THEN delta_hash_id(r.kind, r.object_id) END,
    workflow_id = @workflow_id_prefix::text || CASE WHEN @hash_ids::boolean THEN delta_hash_id(r.kind, r.object_id) ELSE r.object_id END
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
RETURNING r.id, r.object_id, r.hashed_id, r.namespace, r.priority, r.state, r.generation, r.dispatch_at;

-- name: SettleWoken :exec
-- Leased rows whose workflows were woken go on by themselves, unless they have done so already. One that waits for its time
-- is not woken before that has passed: each time, where there are batches, it would be put into another one.
--
-- A row that somebody else has locked is left to its lease: who waits while he holds other rows can be the end of an inform.
UPDATE delta_resource
SET dispatch_at = CASE WHEN due_at IS NOT NULL OR state IN ('scheduled', 'expired', 'failed', 'pending')
    THEN greatest(now() + @net::interval, due_at + @grace::interval) END
WHERE id IN (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY(@ids::bigint[]) AND d.dispatch_at = @leased_until
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: ReturnLease :exec
-- Leased rows whose workflows were not woken are leased again.
UPDATE delta_resource SET dispatch_at = now() + @after::interval
WHERE id IN (
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY(@ids::bigint[]) AND d.dispatch_at = @leased_until
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: FreeLeased :exec
-- Rows of batches that nobody starts, because who leased them as he wrote them did not learn whether he had, are leased again. The
-- names of such batches were made up for the one statement: a row that went on meanwhile, or was dispatched, has another.
UPDATE delta_resource SET dispatch_at = now()
WHERE id IN (
    SELECT d.id FROM delta_resource d
    WHERE d.kind = @kind AND d.priority = ANY ('{1,2,3,4,5}'::smallint[])
      AND d.dispatch_at > now() AND d.dispatch_at <= now() + @lease::interval
      AND d.state = 'scheduled' AND d.workflow_id = ANY (@batch_ids::text[])
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: RedispatchResource :exec
-- Asks for a row to be dispatched soon, because the workflow that was woken is not this installation's.
UPDATE delta_resource SET dispatch_at = now() + @after::interval
WHERE kind = @kind AND object_id = @object_id AND state IN ('scheduled', 'expired', 'failed', 'pending');

-- name: Notify :exec
-- The channel is the installation's: schemas of one database do not wake each other.
SELECT pg_notify(delta_channel(), kind) FROM unnest(@kinds::text[]) AS kind;

-- name: ForgetDispatched :many
-- Has a page of lifecycles dispatched anew that Temporal has lost, each once: those before are being dispatched meanwhile, and
-- look as if they were lost. Those that are being worked on look after themselves.
UPDATE delta_resource SET dispatch_at = now()
WHERE id IN (
    SELECT d.id FROM delta_resource d
    WHERE d.id > @after_id AND d.dispatch_at > now() AND d.state <> 'pending'
    ORDER BY d.id
    LIMIT @batch::integer
    FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING id, kind;

-- name: HashResourceID :one
UPDATE delta_resource SET hashed_id = delta_hash_id(kind, object_id) WHERE kind = @kind AND object_id = @object_id
RETURNING hashed_id;
