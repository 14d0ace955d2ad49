-- name: GetInstallation :one
SELECT * FROM delta_installation;

-- name: ClaimInstallation :one
-- The first client that starts fixes the names of workflows. Returns the settings that are in force.
UPDATE delta_installation
SET workflow_id_prefix = coalesce(workflow_id_prefix, @prefix::text),
    hash_object_ids = coalesce(hash_object_ids, @hash_object_ids::boolean),
    object_hash_key = coalesce(object_hash_key, sqlc.narg(object_hash_key)::bytea),
    place = coalesce(place, delta_place())
RETURNING *;

-- name: ClaimObjectHashKey :one
-- The first client with a codec fixes the key of hashes. Returns the mark of the key that is in force.
UPDATE delta_installation SET object_hash_key = coalesce(object_hash_key, @object_hash_key::bytea) RETURNING object_hash_key;

-- name: InstallationOrigin :one
-- What shows that the database was restored from a backup, or is a copy; place is empty before the first client has
-- started.
SELECT coalesce(i.place, '')::text AS place, delta_place()::text AS here, i.heartbeat, i.heartbeat_at, i.marked_heartbeat
FROM delta_installation i;

-- name: BeatHeart :many
-- Raises the heartbeat once an interval, for all clients, and returns the one of before, which was committed an
-- interval ago, with what Temporal has and where the tables are. No row if another client has raised it.
UPDATE delta_installation SET heartbeat = heartbeat + 1, heartbeat_at = now()
WHERE heartbeat_at <= now() - sqlc.arg(every)::interval
RETURNING (heartbeat - 1)::bigint AS heartbeat, marked_heartbeat, delta_place() AS place;

-- name: NoteMarked :exec
-- Notes which heartbeat Temporal has.
UPDATE delta_installation SET marked_heartbeat = @heartbeat::bigint WHERE marked_heartbeat < @heartbeat::bigint;

-- name: AdoptInstallation :one
-- Makes the database the one of its installation, and returns where the tables are: from here on Temporal's heartbeat is lower. Positions in the log of
-- changes of before are of no use, because the log may have gone back.
UPDATE delta_installation
SET place = delta_place(), heartbeat = greatest(heartbeat, @heartbeat::bigint) + 1, heartbeat_at = now(), marked_heartbeat = @heartbeat::bigint,
    measured_by = NULL, measured_until = NULL, change_epoch = change_epoch + 1
RETURNING delta_place() AS place;

-- name: SeparateInstallation :one
-- Makes a copy an installation of its own. Its clients need another prefix.
UPDATE delta_installation
SET id = gen_random_uuid(), workflow_id_prefix = NULL, place = delta_place(), heartbeat = 1, heartbeat_at = now(), marked_heartbeat = 0,
    measured_by = NULL, measured_until = NULL, change_epoch = change_epoch + 1
RETURNING id;

-- name: LeaveWorkflows :many
-- A page of the rows of a copy: they belong to no workflow any more, because those are the original's, and a dispatcher
-- looks at each of them.
UPDATE delta_resource SET workflow_id = NULL, dispatch_at = CASE WHEN dispatch_at > now() THEN now() ELSE dispatch_at END
WHERE id = ANY (ARRAY(SELECT d.id FROM delta_resource d WHERE d.id > @after_id ORDER BY d.id LIMIT @batch::integer))
RETURNING id;

-- name: HashID :one
-- The name that Temporal has for a resource where object ids are kept from it. The resource need not exist.
SELECT delta_hash_id(@kind, @object_id)::text AS hashed_id;

-- name: UpsertNamespace :many
-- The settings of the latest client that starts count, unless an operator has set them while clients ran
-- (SetNamespace). Returns the settings before, where they were different.
WITH before AS (
    SELECT n.* FROM delta_namespace n WHERE n.name = @name
),
written AS (
    INSERT INTO delta_namespace (name, resource_expiry, synced_retention, degraded_retention, deleted_retention, rate_limit)
    VALUES (@name, @resource_expiry::interval, sqlc.narg(synced_retention)::interval, @degraded_retention::interval,
        @deleted_retention::interval, nullif(@rate_limit::double precision, 0))
    ON CONFLICT (name) DO UPDATE
    SET resource_expiry = excluded.resource_expiry,
        synced_retention = excluded.synced_retention,
        degraded_retention = excluded.degraded_retention,
        deleted_retention = excluded.deleted_retention,
        rate_limit = excluded.rate_limit,
        updated_at = now()
    WHERE NOT delta_namespace.overridden
    RETURNING *
)
SELECT b.* FROM before b CROSS JOIN written w
WHERE b.degraded_retention IS NOT NULL -- it was configured
  AND (b.resource_expiry, b.synced_retention, b.degraded_retention, b.deleted_retention, b.rate_limit)
   IS DISTINCT FROM (w.resource_expiry, w.synced_retention, w.degraded_retention, w.deleted_retention, w.rate_limit);

-- name: UpsertController :one
-- A client that leaves informers to others (informs is false) keeps what they wrote about informers. Where the
-- informer's schedule changes, runs that another schedule has not made are not missing.
INSERT INTO delta_controller AS c (
    name, inform_interval, inform_schedule, inform_jitter, full_listing_interval, lists_nothing, lists_all, task_queue, finalizes, synced_retention,
    degraded_retention, deleted_retention, degraded_retry, key_concurrency, key_rate, logs_changes, touched_by
)
VALUES (@name, @inform_interval, sqlc.narg(inform_schedule), sqlc.narg(inform_jitter), @full_listing_interval, @lists_nothing, @lists_all,
    sqlc.narg(task_queue), @finalizes,
    @synced_retention::interval, @degraded_retention::interval, @deleted_retention::interval, @degraded_retry::interval,
    @key_concurrency, @key_rate, @logs_changes, coalesce(@touched_by::text[], '{}'))
ON CONFLICT (name) DO UPDATE
SET inform_interval = CASE WHEN @informs::boolean THEN excluded.inform_interval ELSE c.inform_interval END,
    inform_schedule = CASE WHEN @informs::boolean THEN excluded.inform_schedule ELSE c.inform_schedule END,
    inform_jitter = CASE WHEN @informs::boolean THEN excluded.inform_jitter ELSE c.inform_jitter END,
    full_listing_interval = CASE WHEN @informs::boolean THEN excluded.full_listing_interval ELSE c.full_listing_interval END,
    lists_nothing = CASE WHEN @informs::boolean THEN excluded.lists_nothing ELSE c.lists_nothing END,
    lists_all = CASE WHEN @informs::boolean THEN excluded.lists_all ELSE c.lists_all END,
    informs_since = CASE WHEN @informs::boolean
      AND (excluded.inform_interval, excluded.inform_schedule, excluded.full_listing_interval, excluded.lists_nothing)
       IS DISTINCT FROM (c.inform_interval, c.inform_schedule, c.full_listing_interval, c.lists_nothing) THEN now() ELSE c.informs_since END,
    task_queue = excluded.task_queue, finalizes = c.finalizes OR excluded.finalizes, synced_retention = excluded.synced_retention,
    degraded_retention = excluded.degraded_retention, deleted_retention = excluded.deleted_retention, degraded_retry = excluded.degraded_retry,
    key_concurrency = excluded.key_concurrency, key_rate = excluded.key_rate, logs_changes = excluded.logs_changes,
    touched_by = excluded.touched_by, schedules_checked_at = NULL, updated_at = now()
RETURNING *;

-- name: GetController :one
SELECT * FROM delta_controller WHERE name = @name;

-- name: ClaimScheduleChecks :many
-- The kinds whose schedules the client is to compare with their rows: each once an interval, by one client, and at once
-- after a change.
UPDATE delta_controller SET schedules_checked_at = now()
WHERE name = ANY (ARRAY(
    SELECT c.name FROM delta_controller c
    WHERE c.name = ANY (@kinds::text[]) AND (c.schedules_checked_at IS NULL OR c.schedules_checked_at <= now() - sqlc.arg(every)::interval)
    ORDER BY c.name FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING *;

-- name: ForgetScheduleChecks :exec
-- Has the schedules of kinds compared at once; of all kinds if none are given.
UPDATE delta_controller SET schedules_checked_at = NULL
WHERE name = ANY (ARRAY(
    SELECT c.name FROM delta_controller c WHERE cardinality(@kinds::text[]) = 0 OR c.name = ANY (@kinds::text[])
    ORDER BY c.name FOR NO KEY UPDATE
));

-- name: Now :one
SELECT now()::timestamptz AS now;

-- name: LockControllers :exec
LOCK TABLE delta_controller IN SHARE ROW EXCLUSIVE MODE;

-- name: ClaimTaskQueue :many
-- Notes the task queue of kinds, and returns other kinds on the same task queue: then nothing is noted.
WITH others AS (
    SELECT c.name FROM delta_controller c WHERE c.task_queue = @task_queue::text AND c.name <> ALL (@kinds::text[])
),
claimed AS (
    INSERT INTO delta_controller (name, inform_interval, task_queue)
    SELECT k.name, '0', @task_queue::text FROM unnest(@kinds::text[]) AS k (name) WHERE NOT EXISTS (SELECT FROM others)
    ON CONFLICT (name) DO UPDATE SET task_queue = excluded.task_queue, updated_at = now()
)
SELECT o.name FROM others o ORDER BY o.name;

-- name: ReserveCalls :one
-- Reserves calls of Work for some time, and returns how long it is until the first of them may begin: after all that
-- any client has reserved before.
INSERT INTO delta_controller AS c (name, inform_interval, next_call_at) VALUES (@kind, '0', now() + sqlc.arg('for')::interval)
ON CONFLICT (name) DO UPDATE SET next_call_at = greatest(c.next_call_at, now()) + sqlc.arg('for')::interval
RETURNING (next_call_at - sqlc.arg('for')::interval - now())::interval AS wait;

-- name: ReserveNamespaceCalls :one
-- ReserveCalls for a namespace, across kinds.
INSERT INTO delta_namespace AS n (name, next_call_at) VALUES (@namespace, now() + sqlc.arg('for')::interval)
ON CONFLICT (name) DO UPDATE SET next_call_at = greatest(n.next_call_at, now()) + sqlc.arg('for')::interval
RETURNING (next_call_at - sqlc.arg('for')::interval - now())::interval AS wait;

-- name: SetNamespace :exec
-- Sets a namespace while clients run. A value of 0 is left to the defaults of clients.
INSERT INTO delta_namespace (
    name, resource_expiry, synced_retention, degraded_retention, deleted_retention, rate_limit, max_workers, overridden
)
VALUES (@name, nullif(@resource_expiry::interval, '0'), nullif(@synced_retention::interval, '0'), nullif(@degraded_retention::interval, '0'),
    nullif(@deleted_retention::interval, '0'), nullif(@rate_limit::double precision, 0), nullif(@max_workers::integer, 0), @overridden::boolean)
ON CONFLICT (name) DO UPDATE
SET resource_expiry = excluded.resource_expiry, synced_retention = excluded.synced_retention,
    degraded_retention = excluded.degraded_retention, deleted_retention = excluded.deleted_retention,
    rate_limit = excluded.rate_limit, max_workers = excluded.max_workers, overridden = excluded.overridden, updated_at = now();
