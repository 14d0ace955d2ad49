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
    ON CONFLICT (kind, object_id) DO NOTHING
    RETURNING *
),
updated AS (
    UPDATE delta_resource r
    SET object = i.object,
        hash = i.hash,
        namespace = coalesce(i.namespace, r.namespace),
        metadata = coalesce(i.metadata, r.metadata),
        tags = coalesce(i.tags, r.tags),
        max_attempts = coalesce(i.max_attempts, r.max_attempts),
        external_created_at = coalesce(i.external_created_at, r.external_created_at),
        state = 'scheduled',
        generation = r.generation + 1,
        attempt = 0,
        due_at = now(),
        dispatch_at = now()
    FROM input i
    WHERE r.kind = i.kind AND r.object_id = i.object_id
      AND (r.state <> 'deleted' OR @revive::boolean)
      AND (r.hash <> i.hash
        OR r.namespace <> i.namespace
        OR r.metadata <> i.metadata
        OR r.tags <> i.tags
        OR r.max_attempts <> i.max_attempts
        OR (r.state IN ('degraded', 'deleted', 'unknown') AND @revive::boolean)
        OR (r.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))
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
    SELECT count(pg_notify('delta_' || (SELECT id FROM delta_installation), w.kind)::text) AS kinds
    FROM (SELECT kind FROM inserted UNION SELECT kind FROM updated) w
    WHERE @notify::boolean
)
SELECT r.*, FALSE AS existed, TRUE AS written, n.kinds AS notified FROM inserted r CROSS JOIN notified n
UNION ALL
SELECT r.*, TRUE, TRUE, n.kinds FROM updated r CROSS JOIN notified n
UNION ALL
SELECT r.*, TRUE, FALSE, 0 FROM kept r;
