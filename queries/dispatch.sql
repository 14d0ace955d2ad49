-- The outbox. A row is due when dispatch_at has passed. A dispatcher leases a batch, wakes the workflows, then settles:
-- if it dies in between, the lease runs out and another one does it again.

-- name: LeaseDue :many
UPDATE delta_resource r
SET dispatch_at = now() + @lease::interval,
    workflow_id = @workflow_id_prefix::text || r.object_id
FROM (
    SELECT d.id FROM delta_resource d
    WHERE d.kind = @kind AND d.dispatch_at <= now()
    ORDER BY d.dispatch_at
    LIMIT @batch::integer
    FOR UPDATE SKIP LOCKED
) due
WHERE r.id = due.id
RETURNING r.id, r.object_id, r.generation, r.dispatch_at;

-- name: SettleLease :exec
-- Moves leased rows on, unless the lifecycle has done so itself.
UPDATE delta_resource SET dispatch_at = now() + @after::interval
WHERE id = ANY(@ids::bigint[]) AND dispatch_at = @leased_until;

-- name: RedispatchResource :exec
-- Asks for a row to be dispatched soon, because the workflow that was woken is not this installation's.
UPDATE delta_resource SET dispatch_at = now() + @after::interval
WHERE kind = @kind AND object_id = @object_id AND state IN ('scheduled', 'expired', 'failed', 'pending');

-- name: Notify :exec
-- The channel is the installation's: schemas of one database do not wake each other.
SELECT pg_notify(delta_channel(), kind) FROM unnest(@kinds::text[]) AS kind;
