-- name: InformResources :many
-- The one upsert. It serves Inform, InformTx, InformMany and the informers.
--
-- New objects are inserted; objects that changed start a new generation; the others are only read. An empty namespace,
-- metadata or tags and a max_attempts of 0 mean "not given": the row keeps what it has, a new row gets the default.
-- An object that another transaction inserts or changes at the same moment is missing from the result: ask again.
WITH input AS (
    SELECT
        unnest(@kinds::text[]) AS kind,
        unnest(@object_ids::text[]) AS object_id,
        unnest(@objects::jsonb[]) AS object,
        unnest(@hashes::bytea[]) AS hash,
        nullif(unnest(@namespaces::text[]), '') AS namespace,
        nullif(unnest(@metadatas::text[]), '')::jsonb AS metadata,
        nullif(unnest(@tags::text[]), '')::text[] AS tags,
        nullif(unnest(@max_attempts::smallint[]), 0::smallint) AS max_attempts,
        nullif(unnest(@external_created_ats::timestamptz[]), '0001-01-01 00:00:00Z') AS external_created_at
),
inserted AS (
    INSERT INTO delta_resource (
        kind, object_id, object, hash, namespace, metadata, tags, max_attempts, external_created_at, due_at, dispatch_at
    )
    SELECT
        i.kind, i.object_id, i.object, i.hash, coalesce(i.namespace, 'default'), coalesce(i.metadata, '{}'),
        coalesce(i.tags, '{}'), coalesce(i.max_attempts, @default_max_attempts::smallint), i.external_created_at, now(), now()
    FROM input i
    WHERE NOT EXISTS (SELECT FROM delta_resource r WHERE r.kind = i.kind AND r.object_id = i.object_id)
    ORDER BY i.kind, i.object_id
    ON CONFLICT (kind, object_id) DO NOTHING
    RETURNING *
),
-- Rows are locked in one order whatever the plan, so that two sets that overlap wait for each other and do not deadlock.
changed AS (
    SELECT r.id, i.*
    FROM input i
    JOIN delta_resource r ON r.kind = i.kind AND r.object_id = i.object_id
    WHERE (r.state <> 'deleted' OR @revive::boolean)
      AND (r.hash <> i.hash
        OR r.namespace <> i.namespace
        OR r.metadata <> i.metadata
        OR r.tags <> i.tags
        OR r.max_attempts <> i.max_attempts
        OR (r.state IN ('degraded', 'deleted', 'unknown') AND @revive::boolean)
        OR (r.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))
    ORDER BY r.kind, r.object_id
    FOR NO KEY UPDATE OF r
),
updated AS (
    UPDATE delta_resource r
    SET object = c.object,
        hash = c.hash,
        namespace = coalesce(c.namespace, r.namespace),
        metadata = coalesce(c.metadata, r.metadata),
        tags = coalesce(c.tags, r.tags),
        max_attempts = coalesce(c.max_attempts, r.max_attempts),
        external_created_at = coalesce(c.external_created_at, r.external_created_at),
        state = 'scheduled',
        generation = r.generation + 1,
        attempt = 0,
        due_at = now(),
        dispatch_at = now()
    FROM changed c
    WHERE r.id = c.id
    RETURNING r.*
),
kept AS (
    SELECT r.*
    FROM input i
    JOIN delta_resource r ON r.kind = i.kind AND r.object_id = i.object_id
    WHERE NOT ((r.state <> 'deleted' OR @revive::boolean)
      AND (r.hash <> i.hash
        OR coalesce(r.namespace <> i.namespace, FALSE)
        OR coalesce(r.metadata <> i.metadata, FALSE)
        OR coalesce(r.tags <> i.tags, FALSE)
        OR coalesce(r.max_attempts <> i.max_attempts, FALSE)
        OR (r.state IN ('degraded', 'deleted', 'unknown') AND @revive::boolean)
        OR (r.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean)))
),
-- In a caller's transaction the wake-up is sent here: Postgres delivers it at commit, once a kind, and drops it at
-- rollback. Elsewhere the client sends it itself, because a commit that notifies waits for every other one that does.
notified AS (
    SELECT count(pg_notify(delta_channel(), w.kind)::text) AS kinds
    FROM (SELECT kind FROM inserted UNION SELECT kind FROM updated) w
    WHERE @notify::boolean
)
SELECT r.*, FALSE AS existed, TRUE AS written, n.kinds AS notified FROM inserted r CROSS JOIN notified n
UNION ALL
SELECT r.*, TRUE, TRUE, n.kinds FROM updated r CROSS JOIN notified n
UNION ALL
SELECT r.*, TRUE, FALSE, 0 FROM kept r;

-- name: InformResource :many
-- InformResources for one object: most informs are of one, and scalar parameters without a WITH run more than three times
-- as fast as arrays of one. A new or changed object gives back what the caller does not know of its row. An object that
-- did not change is neither written nor locked, and gives back nothing: read it then.
INSERT INTO delta_resource AS r (
    kind, object_id, object, hash, namespace, metadata, tags, max_attempts, external_created_at, due_at, dispatch_at
)
SELECT @kind AS kind, @object_id AS object_id, @object::jsonb AS object, @hash::bytea AS hash,
    coalesce(sqlc.narg(namespace)::text, 'default') AS namespace, coalesce(sqlc.narg(metadata)::jsonb, '{}') AS metadata,
    coalesce(sqlc.narg(tags)::text[], '{}') AS tags, coalesce(sqlc.narg(max_attempts)::smallint, @default_max_attempts::smallint) AS max_attempts,
    sqlc.narg(external_created_at)::timestamptz AS external_created_at, now() AS due_at, now() AS dispatch_at
WHERE NOT EXISTS (
    SELECT FROM delta_resource k
    WHERE k.kind = @kind AND k.object_id = @object_id
      AND NOT ((k.state <> 'deleted' OR @revive::boolean)
        AND (k.hash <> @hash
          OR coalesce(k.namespace <> sqlc.narg(namespace), FALSE)
          OR coalesce(k.metadata <> sqlc.narg(metadata)::jsonb, FALSE)
          OR coalesce(k.tags <> sqlc.narg(tags)::text[], FALSE)
          OR coalesce(k.max_attempts <> sqlc.narg(max_attempts), FALSE)
          OR (k.state IN ('degraded', 'deleted', 'unknown') AND @revive::boolean)
          OR (k.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean)))
)
ON CONFLICT (kind, object_id) DO UPDATE
SET object = excluded.object,
    hash = excluded.hash,
    namespace = coalesce(sqlc.narg(namespace), r.namespace),
    metadata = coalesce(sqlc.narg(metadata)::jsonb, r.metadata),
    tags = coalesce(sqlc.narg(tags)::text[], r.tags),
    max_attempts = coalesce(sqlc.narg(max_attempts), r.max_attempts),
    external_created_at = coalesce(excluded.external_created_at, r.external_created_at),
    state = 'scheduled',
    generation = r.generation + 1,
    attempt = 0,
    due_at = now(),
    dispatch_at = now()
WHERE (r.state <> 'deleted' OR @revive::boolean)
  AND (r.hash <> excluded.hash
    OR r.namespace <> sqlc.narg(namespace)
    OR r.metadata <> sqlc.narg(metadata)::jsonb
    OR r.tags <> sqlc.narg(tags)::text[]
    OR r.max_attempts <> sqlc.narg(max_attempts)
    OR (r.state IN ('degraded', 'deleted', 'unknown') AND @revive::boolean)
    OR (r.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))
RETURNING r.id, r.generation, r.synced_generation, r.created_at, r.attempted_at, r.synced_at, r.external_created_at, r.due_at, r.dispatch_at,
    r.state, r.attempt, r.max_attempts, r.namespace, r.workflow_id, r.metadata, r.tags, r.errors,
    CASE WHEN @notify::boolean THEN length(pg_notify(delta_channel(), r.kind)::text) ELSE 0 END::bigint AS notified;
