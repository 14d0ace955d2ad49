-- name: GetInstallation :one
SELECT * FROM delta_installation;

-- name: ClaimInstallation :one
-- The first client that starts fixes how workflows are named; the answer is what is in force.
UPDATE delta_installation
SET workflow_id_prefix = coalesce(workflow_id_prefix, @prefix::text),
    hash_object_ids = coalesce(hash_object_ids, @hash_object_ids::boolean)
RETURNING *;

-- name: UpsertNamespace :many
-- The last client that starts decides. The answer is what was in force before, where that was different.
WITH before AS (
    SELECT n.* FROM delta_namespace n WHERE n.name = @name
),
written AS (
    INSERT INTO delta_namespace (name, resource_expiry, synced_retention, degraded_retention, deleted_retention)
    VALUES (@name, @resource_expiry, @synced_retention, @degraded_retention, @deleted_retention)
    ON CONFLICT (name) DO UPDATE
    SET resource_expiry = excluded.resource_expiry,
        synced_retention = excluded.synced_retention,
        degraded_retention = excluded.degraded_retention,
        deleted_retention = excluded.deleted_retention,
        updated_at = now()
    RETURNING *
)
SELECT b.* FROM before b CROSS JOIN written w
WHERE (b.resource_expiry, b.synced_retention, b.degraded_retention, b.deleted_retention)
   <> (w.resource_expiry, w.synced_retention, w.degraded_retention, w.deleted_retention);

-- name: UpsertController :one
INSERT INTO delta_controller (name, inform_interval) VALUES (@name, @inform_interval)
ON CONFLICT (name) DO UPDATE SET inform_interval = excluded.inform_interval, updated_at = now()
RETURNING *;

-- name: GetController :one
SELECT * FROM delta_controller WHERE name = @name;

-- name: MoveInformCursor :one
-- The cursor of a kind never moves back.
UPDATE delta_controller SET last_inform_time = greatest(last_inform_time, @last_inform_time::timestamptz), updated_at = now()
WHERE name = @name RETURNING *;

-- name: Now :one
SELECT now()::timestamptz AS now;
