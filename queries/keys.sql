-- Limit keys: how many calls a key has, and which rows wait for one. The functions are in migrations.

-- name: TakeSlots :many
-- Gives rows slots of their limit keys, right before they are claimed or once they are leased. Returns rows that wait
-- for a slot from now on (a dispatcher looks at them when they have it), and rows that may be claimed only when the
-- rate allows their call.
SELECT w.id::bigint AS id, w.queued::boolean AS queued, coalesce(w.wait, '0')::interval AS wait
FROM delta_take_slots(@kind, @ids::bigint[], TRUE, @begins::boolean, @lease::interval) AS w;

-- name: QueueDue :many
-- The first due rows that wait for a slot of their key from now on. The others stay due: no slot is given.
SELECT w.id::bigint AS id FROM delta_take_slots(@kind, ARRAY(
    SELECT found.id FROM unnest(@priorities::smallint[]) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d
        WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at <= now() AND NOT d.paused
        ORDER BY d.dispatch_at
        LIMIT @batch::integer
    ) found
    LIMIT @batch::integer
), FALSE, FALSE, '0') AS w;

-- name: WakeKeys :one
-- Gives free slots of keys to rows that wait for them, makes these due, and returns how many. Null keys mean those that
-- have to be looked at. Namespaces without room are passed by.
SELECT delta_wake_keys(@kind, sqlc.narg(keys)::text[], @limited_namespaces::text[], @rooms::integer[], @passed_by::text[])::bigint AS woken;

-- name: SweepKeys :exec
-- Removes limit keys that have not been used for long.
DELETE FROM delta_key k
WHERE (k.kind, k.limit_key) IN (
    SELECT o.kind, o.limit_key FROM delta_key o
    WHERE o.used_at < now() - @older::interval AND o.wake_at IS NULL AND coalesce(o.next_call_at <= now(), TRUE)
      AND NOT EXISTS (SELECT FROM delta_resource d WHERE d.kind = o.kind AND d.slot_key = o.limit_key)
    FOR UPDATE SKIP LOCKED
);
