-- name: InformResources :many
-- The only upsert of sets. It serves InformMany, InformManyTx, the informers, and single informs that come together.
--
-- New objects are inserted; changed objects start a new generation; the others are neither written nor locked, and are
-- missing from the result: read them (KeptResources). Missing, too, are objects that would move a row to another
-- namespace without being allowed to, because they may be another tenant's, with the same id. An empty namespace,
-- metadata or tags and a max_attempts of 0 mean "not given": the row keeps its value, a new row gets the default. An
-- object that another transaction inserts or removes at the same moment is missing too: try it again.
--
-- An object with a lower revision than the row's is stale and left out, unless it is forced. Other metadata or tags
-- start a new generation only with sync_metadata; otherwise NoteResources writes them.
--
-- expected_hash is the hash of the row that a caller has compared the object with: empty for no row, null where it did
-- not compare. A row that changed since is left out: compare again.
--
-- Where the hash of a row was imported from Delta on River (delta_is_rivers), the objects themselves are compared.
--
-- LIMIT 1 makes each probe find one row, whatever the planner believes of the table; a new object needs only the first
-- probe. It also makes the planner see that: if it expects more rows, the costs of large sets make Postgres compile the
-- statement each time (jit_above_cost), which takes longer than running it. Rows are locked in the order of the arrays,
-- so that overlapping sets wait for each other and do not deadlock if all of them are sorted.
WITH settings AS MATERIALIZED (
    -- For this transaction; a lock_timeout is given only outside of one, for this statement alone.
    SELECT CASE WHEN @lock_timeout::text <> '' THEN set_config('lock_timeout', @lock_timeout::text, TRUE) END AS lock_timeout
)
INSERT INTO delta_resource AS r (
    kind, object_id, object, hash, namespace, metadata, tags, max_attempts, external_created_at, generation, priority, due_at,
    dispatch_at, revision, object_version, shard, limit_key, carrier, parents, awaited_parents
)
SELECT
    i.kind, i.object_id, i.object, i.hash,
    coalesce(i.namespace, k.namespace, 'default') AS namespace,
    coalesce(i.metadata, k.metadata, '{}') AS metadata,
    coalesce(i.tags, k.tags, '{}') AS tags,
    coalesce(i.max_attempts, k.max_attempts, @default_max_attempts::smallint) AS max_attempts,
    coalesce(i.external_created_at, k.external_created_at) AS external_created_at,
    coalesce(k.generation, 0) + 1 AS generation,
    i.priority,
    now() AS due_at,
    now() AS dispatch_at,
    i.revision, coalesce(i.object_version, 0) AS object_version, i.shard, i.limit_key, i.carrier, i.parents, i.parents AS awaited_parents
FROM (
    SELECT
        settings.lock_timeout,
        unnest(@kinds::text[]) AS kind,
        unnest(@object_ids::text[]) AS object_id,
        unnest(@objects::jsonb[]) AS object,
        unnest(@hashes::bytea[]) AS hash,
        nullif(unnest(@namespaces::text[]), '') AS namespace,
        unnest(@move_namespaces::boolean[]) AS move_namespace,
        nullif(unnest(@metadatas::text[]), '')::jsonb AS metadata,
        nullif(unnest(@tags::text[]), '')::text[] AS tags,
        nullif(unnest(@max_attempts::smallint[]), 0::smallint) AS max_attempts,
        nullif(unnest(@external_created_ats::timestamptz[]), '0001-01-01 00:00:00Z') AS external_created_at,
        unnest(@priorities::smallint[]) AS priority,
        nullif(unnest(@revisions::text[]), '')::bigint AS revision,
        unnest(@object_versions::integer[]) AS object_version,
        nullif(unnest(@shards::text[]), '') AS shard,
        nullif(unnest(@limit_keys::text[]), '') AS limit_key,
        nullif(unnest(@carriers::text[]), '') AS carrier,
        nullif(unnest(@parents::text[]), '')::text[] AS parents,
        unnest(@forced::boolean[]) AS forced,
        unnest(@sync_metadata::boolean[]) AS sync_metadata,
        unnest(@expected_hashes::bytea[]) AS expected_hash
    FROM settings
) i
LEFT JOIN LATERAL (
    SELECT TRUE AS there FROM delta_resource d WHERE d.kind = i.kind AND d.object_id = i.object_id LIMIT 1
) p ON TRUE
LEFT JOIN LATERAL (
    SELECT d.* FROM delta_resource d
    WHERE p.there AND d.kind = i.kind AND d.object_id = i.object_id
      AND (i.namespace IS NULL OR d.namespace = i.namespace OR coalesce(i.move_namespace, FALSE))
      AND NOT delta_stays_deleted(d.state, d.cause, @revive::boolean)
      AND (i.forced IS TRUE OR coalesce(i.revision >= d.revision, TRUE))
      AND coalesce(d.hash = i.expected_hash, TRUE)
      AND ((d.hash <> i.hash AND NOT (delta_is_rivers(d.hash) AND d.object = i.object))
        OR d.namespace <> i.namespace
        OR (i.sync_metadata IS TRUE AND (d.metadata <> i.metadata OR d.tags <> i.tags))
        OR d.max_attempts <> i.max_attempts
        OR delta_comes_back(d.state, d.cause, @revive::boolean)
        OR (d.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))
    LIMIT 1
    FOR NO KEY UPDATE
) k ON TRUE
WHERE k.id IS NOT NULL OR (p.there IS NULL AND coalesce(i.expected_hash = '', TRUE))
ON CONFLICT (kind, object_id) DO UPDATE
SET object = excluded.object,
    hash = excluded.hash,
    namespace = excluded.namespace,
    metadata = excluded.metadata,
    tags = excluded.tags,
    max_attempts = excluded.max_attempts,
    external_created_at = excluded.external_created_at,
    state = 'scheduled',
    generation = excluded.generation,
    generation_at = now(),
    attempt = 0,
    snoozes = 0,
    -- A less urgent inform does not delay a row that waits already.
    priority = CASE WHEN r.state IN ('scheduled', 'expired', 'failed') THEN least(r.priority, excluded.priority) ELSE excluded.priority END,
    due_at = now(),
    dispatch_at = now(),
    revision = excluded.revision,
    object_version = excluded.object_version,
    shard = excluded.shard,
    limit_key = excluded.limit_key,
    carrier = excluded.carrier,
    parents = excluded.parents,
    awaited_parents = CASE WHEN excluded.parents IS NOT NULL THEN delta_awaited_parents(excluded.parents, r.parents, r.awaited_parents) END,
    -- Marks a deleted resource of a kind with a log as revived, so that the entry is appended below.
    change_xid = CASE WHEN r.state = 'deleted' AND r.change_xid IS NOT NULL THEN delta_order_xid(r.change_xid) ELSE r.change_xid END,
    synced_object = CASE WHEN r.state = 'deleted' THEN NULL ELSE r.synced_object END,
    revived_generation = CASE WHEN r.state = 'deleted' AND r.change_xid IS NOT NULL THEN r.generation + 1 ELSE r.revived_generation END,
    written_by = pg_current_xact_id(),
    informed_by = pg_current_xact_id()
WHERE r.generation = excluded.generation - 1
RETURNING r.kind, r.object_id, r.id, r.generation, r.synced_generation, r.created_at, r.generation_at, r.attempted_at, r.synced_at, r.external_created_at, r.listed_at,
    r.due_at, r.dispatch_at, r.state, r.cause, r.finalized, r.attempt, r.snoozes, r.sync_count, r.max_attempts, r.priority, r.paused, r.claim, r.claimed_until, r.hashed_id, r.namespace, r.workflow_id, r.metadata, r.tags, r.errors,
    r.revision, r.object_version, r.shard, r.limit_key, r.written_by, r.informed_by, r.parents, r.awaited_parents,
    -- In a caller's transaction the wake-up is sent here: Postgres delivers it at commit, once a kind, and drops it at
    -- rollback. Elsewhere the client sends it itself, because a commit that notifies waits for every other one that does.
    CASE WHEN @notify::boolean THEN length(pg_notify(delta_channel(), r.kind)::text) ELSE 0 END::bigint AS notified,
    CASE WHEN r.revived_generation = r.generation THEN delta_append_change('revived', r.change_xid, r.id, r.kind, r.object_id, r.namespace, r.generation,
        r.sync_count, NULL, r.object, NULL, r.carrier) ELSE 0 END::bigint AS change_id;

-- name: KeptResources :many
-- Rows that InformResources did not write, of the same arrays: rows in another namespace, for which their object is
-- refused; rows that are as given, except metadata and tags; and rows with a newer object. A row that still has an
-- imported hash is unchanged, because each change of its object replaces the hash.
SELECT r.*
FROM (
    SELECT
        unnest(@kinds::text[]) AS kind,
        unnest(@object_ids::text[]) AS object_id,
        unnest(@hashes::bytea[]) AS hash,
        nullif(unnest(@namespaces::text[]), '') AS namespace,
        unnest(@move_namespaces::boolean[]) AS move_namespace,
        nullif(unnest(@metadatas::text[]), '')::jsonb AS metadata,
        nullif(unnest(@tags::text[]), '')::text[] AS tags,
        nullif(unnest(@max_attempts::smallint[]), 0::smallint) AS max_attempts,
        nullif(unnest(@revisions::text[]), '')::bigint AS revision,
        unnest(@forced::boolean[]) AS forced,
        unnest(@sync_metadata::boolean[]) AS sync_metadata,
        unnest(@expected_hashes::bytea[]) AS expected_hash
) i
CROSS JOIN LATERAL (
    SELECT d.* FROM delta_resource d WHERE d.kind = i.kind AND d.object_id = i.object_id LIMIT 1
) r
WHERE (coalesce(r.namespace <> i.namespace, FALSE) AND NOT coalesce(i.move_namespace, FALSE))
  OR (coalesce(r.hash = i.expected_hash, TRUE)
  AND NOT (NOT delta_stays_deleted(r.state, r.cause, @revive::boolean)
  AND (i.forced IS TRUE OR coalesce(i.revision >= r.revision, TRUE))
  AND ((r.hash <> i.hash AND NOT delta_is_rivers(r.hash))
    OR coalesce(r.namespace <> i.namespace, FALSE)
    OR (i.sync_metadata IS TRUE AND (coalesce(r.metadata <> i.metadata, FALSE) OR coalesce(r.tags <> i.tags, FALSE)))
    OR coalesce(r.max_attempts <> i.max_attempts, FALSE)
    OR delta_comes_back(r.state, r.cause, @revive::boolean)
    OR (r.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))));

-- name: InformResource :many
-- InformResources for one object: most informs are of one, and scalar parameters without a WITH run more than three
-- times as fast as arrays of one. A new or changed object returns the columns of its row that the caller does not know.
-- An unchanged object is neither written nor locked, and returns nothing: read it then.
INSERT INTO delta_resource AS r (
    kind, object_id, object, hash, namespace, metadata, tags, max_attempts, external_created_at, priority, due_at, dispatch_at,
    revision, object_version, shard, limit_key, carrier, parents, awaited_parents
)
SELECT @kind AS kind, @object_id AS object_id, @object::jsonb AS object, @hash::bytea AS hash,
    coalesce(sqlc.narg(namespace)::text, 'default') AS namespace, coalesce(sqlc.narg(metadata)::jsonb, '{}') AS metadata,
    coalesce(sqlc.narg(tags)::text[], '{}') AS tags, coalesce(sqlc.narg(max_attempts)::smallint, @default_max_attempts::smallint) AS max_attempts,
    sqlc.narg(external_created_at)::timestamptz AS external_created_at, @priority::smallint AS priority, now() AS due_at, now() AS dispatch_at,
    sqlc.narg(revision)::bigint AS revision, @object_version::integer AS object_version,
    nullif(@shard::text, '') AS shard, nullif(@limit_key::text, '') AS limit_key,
    nullif(@carrier::text, '') AS carrier, sqlc.narg(parents)::text[] AS parents, sqlc.narg(parents)::text[] AS awaited_parents
WHERE NOT EXISTS (
    SELECT FROM delta_resource k
    WHERE k.kind = @kind AND k.object_id = @object_id
      AND ((coalesce(k.namespace <> sqlc.narg(namespace), FALSE) AND NOT @move_namespace::boolean)
        OR NOT (NOT delta_stays_deleted(k.state, k.cause, @revive::boolean)
        AND (@forced::boolean OR coalesce(sqlc.narg(revision) >= k.revision, TRUE))
        AND coalesce(k.hash = sqlc.narg(expected_hash)::bytea, TRUE)
        AND ((k.hash <> @hash AND NOT (delta_is_rivers(k.hash) AND k.object = @object::jsonb))
          OR coalesce(k.namespace <> sqlc.narg(namespace), FALSE)
          OR (@sync_metadata::boolean AND (coalesce(k.metadata <> sqlc.narg(metadata)::jsonb, FALSE)
            OR coalesce(k.tags <> sqlc.narg(tags)::text[], FALSE)))
          OR coalesce(k.max_attempts <> sqlc.narg(max_attempts), FALSE)
          OR delta_comes_back(k.state, k.cause, @revive::boolean)
          OR (k.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))))
)
  AND (coalesce(sqlc.narg(expected_hash)::bytea = '', TRUE)
    OR EXISTS (SELECT FROM delta_resource k WHERE k.kind = @kind AND k.object_id = @object_id))
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
    generation_at = now(),
    attempt = 0,
    snoozes = 0,
    priority = CASE WHEN r.state IN ('scheduled', 'expired', 'failed') THEN least(r.priority, excluded.priority) ELSE excluded.priority END,
    due_at = now(),
    dispatch_at = now(),
    revision = excluded.revision,
    object_version = excluded.object_version,
    shard = excluded.shard,
    limit_key = excluded.limit_key,
    carrier = excluded.carrier,
    parents = excluded.parents,
    awaited_parents = CASE WHEN excluded.parents IS NOT NULL THEN delta_awaited_parents(excluded.parents, r.parents, r.awaited_parents) END,
    -- Marks a deleted resource of a kind with a log as revived, so that the entry is appended below.
    change_xid = CASE WHEN r.state = 'deleted' AND r.change_xid IS NOT NULL THEN delta_order_xid(r.change_xid) ELSE r.change_xid END,
    synced_object = CASE WHEN r.state = 'deleted' THEN NULL ELSE r.synced_object END,
    revived_generation = CASE WHEN r.state = 'deleted' AND r.change_xid IS NOT NULL THEN r.generation + 1 ELSE r.revived_generation END,
    written_by = pg_current_xact_id(),
    informed_by = pg_current_xact_id()
WHERE NOT delta_stays_deleted(r.state, r.cause, @revive::boolean)
  AND (@move_namespace::boolean OR coalesce(r.namespace = sqlc.narg(namespace), TRUE))
  AND (@forced::boolean OR coalesce(excluded.revision >= r.revision, TRUE))
  AND coalesce(r.hash = sqlc.narg(expected_hash)::bytea, TRUE)
  AND ((r.hash <> excluded.hash AND NOT (delta_is_rivers(r.hash) AND r.object = excluded.object))
    OR r.namespace <> sqlc.narg(namespace)
    OR (@sync_metadata::boolean AND (r.metadata <> sqlc.narg(metadata)::jsonb OR r.tags <> sqlc.narg(tags)::text[]))
    OR r.max_attempts <> sqlc.narg(max_attempts)
    OR delta_comes_back(r.state, r.cause, @revive::boolean)
    OR (r.state NOT IN ('scheduled', 'pending') AND @process_existing::boolean))
RETURNING r.kind, r.object_id, r.id, r.generation, r.synced_generation, r.created_at, r.generation_at, r.attempted_at, r.synced_at, r.external_created_at, r.listed_at,
    r.due_at, r.dispatch_at, r.state, r.cause, r.finalized, r.attempt, r.snoozes, r.sync_count, r.max_attempts, r.priority, r.paused, r.claim, r.claimed_until, r.hashed_id, r.namespace, r.workflow_id, r.metadata, r.tags, r.errors,
    r.revision, r.object_version, r.shard, r.limit_key, r.written_by, r.informed_by, r.parents, r.awaited_parents,
    CASE WHEN @notify::boolean THEN length(pg_notify(delta_channel(), r.kind)::text) ELSE 0 END::bigint AS notified,
    CASE WHEN r.revived_generation = r.generation THEN delta_append_change('revived', r.change_xid, r.id, r.kind, r.object_id, r.namespace, r.generation,
        r.sync_count, NULL, r.object, NULL, r.carrier) ELSE 0 END::bigint AS change_id;

-- name: RaisePriorities :many
-- Informs that changed nothing raise the priority of waiting rows. Locked rows are skipped: they are being dispatched,
-- and waiting in a user's transaction could deadlock.
WITH o AS MATERIALIZED (
    SELECT i.id, i.priority
    FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@priorities::smallint[]) AS priority) i
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d
        WHERE d.id = i.id AND d.priority > i.priority AND d.state IN ('scheduled', 'expired', 'failed') LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
)
UPDATE delta_resource r SET priority = o.priority, written_by = pg_current_xact_id(), informed_by = pg_current_xact_id()
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[])
RETURNING r.id, r.priority;

-- name: NoteListed :exec
-- An informer lists resources that stay degraded or deleted: their retention begins again. A row that was noted less
-- than a tenth of its retention ago is not written again, however often it is listed; where it is kept for ever, which
-- may change, a tenth of a day ago. Locked rows are being changed.
UPDATE delta_resource r SET listed_at = now()
WHERE r.id = ANY (ARRAY(
    SELECT d.id FROM delta_resource d
    LEFT JOIN delta_namespace n ON n.name = d.namespace
    WHERE d.id = ANY (@ids::bigint[]) AND (d.state = 'degraded' OR delta_stays_deleted(d.state, d.cause, FALSE))
      AND coalesce(d.listed_at <= now() - 0.1 * coalesce(
        delta_retention(d.state, n, NULL, @default_degraded_retention::interval, @default_deleted_retention::interval), '1 day'), TRUE)
    FOR NO KEY UPDATE OF d SKIP LOCKED
));

-- name: NoteRefusedListed :exec
-- An informer names objects that it cannot take. Other complete listings of the kind that run must not delete their
-- resources, as with objects that are taken.
UPDATE delta_resource r SET written_by = pg_current_xact_id(), informed_by = pg_current_xact_id()
WHERE r.id = ANY (ARRAY(
    SELECT d.id FROM delta_resource d
    WHERE d.kind = @kind AND d.object_id = ANY (@object_ids::text[]) AND EXISTS (
        SELECT FROM delta_pass p JOIN delta_claim c ON c.id = p.claim
        WHERE p.kind = @kind AND p.shard IN ('', d.shard) AND c.claimed_until > now() AND p.claim IS DISTINCT FROM sqlc.narg(own_pass)::uuid
    )
    ORDER BY d.object_id
    FOR NO KEY UPDATE
));

-- name: StayingResources :many
-- The resources of some objects that stay degraded or deleted, for NoteListed.
SELECT d.id FROM delta_resource d
WHERE d.kind = @kind AND d.object_id = ANY (@object_ids::text[]) AND (d.state = 'degraded' OR delta_stays_deleted(d.state, d.cause, FALSE));

-- name: KeptResource :one
-- The row of an object that InformResource did not write, and whether a complete listing of its kind or shard runs.
SELECT sqlc.embed(r), EXISTS (
    SELECT FROM delta_pass p JOIN delta_claim c ON c.id = p.claim
    WHERE p.kind = @kind AND p.shard IN ('', r.shard) AND c.claimed_until > now() AND p.claim IS DISTINCT FROM sqlc.narg(own_pass)::uuid
) AS listing
FROM delta_resource r WHERE r.kind = @kind AND r.object_id = @object_id;

-- name: ListedShards :many
-- The shards of some kinds that a complete listing runs for, except the caller's own.
SELECT DISTINCT p.kind, p.shard FROM delta_pass p JOIN delta_claim c ON c.id = p.claim
WHERE p.kind = ANY (@kinds::text[]) AND c.claimed_until > now() AND p.claim IS DISTINCT FROM sqlc.narg(own_pass)::uuid;

-- name: ResourcesToCompare :many
-- The rows of objects that compare themselves.
SELECT r.* FROM (SELECT unnest(@kinds::text[]) AS kind, unnest(@object_ids::text[]) AS object_id) i
CROSS JOIN LATERAL (
    SELECT d.* FROM delta_resource d WHERE d.kind = i.kind AND d.object_id = i.object_id LIMIT 1
) r;

-- name: NoteResources :many
-- Writes news of unchanged objects that are no reason to call Work: metadata, tags, a newer revision, another shard or
-- limit key, other parents, and, while a complete listing runs, that the object exists. A row that went on meanwhile is
-- missing: try it again. Rows are locked in the order of the arrays, as by InformResources. A row that waits for a slot
-- of its limit key and has another key now is dispatched, because nothing looks for it at the new key. So is a row that
-- waits for a parent and has others now.
WITH settings AS MATERIALIZED (
    SELECT CASE WHEN @lock_timeout::text <> '' THEN set_config('lock_timeout', @lock_timeout::text, TRUE) END AS lock_timeout
),
o AS MATERIALIZED (
    SELECT i.id, i.metadata, i.tags, i.revision, i.object_version, i.shard, i.limit_key, i.parents, i.forced
    FROM (
        SELECT settings.lock_timeout, unnest(@ids::bigint[]) AS id, unnest(@generations::bigint[]) AS generation, unnest(@hashes::bytea[]) AS hash,
            nullif(unnest(@metadatas::text[]), '')::jsonb AS metadata, nullif(unnest(@tags::text[]), '')::text[] AS tags,
            nullif(unnest(@revisions::text[]), '')::bigint AS revision, unnest(@object_versions::integer[]) AS object_version,
            nullif(unnest(@shards::text[]), '') AS shard, nullif(unnest(@limit_keys::text[]), '') AS limit_key,
            nullif(unnest(@parents::text[]), '')::text[] AS parents,
            unnest(@forced::boolean[]) AS forced
        FROM settings
    ) i
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d WHERE d.id = i.id AND d.generation = i.generation AND d.hash = i.hash LIMIT 1 FOR NO KEY UPDATE
    ) l
)
UPDATE delta_resource r
SET metadata = coalesce(o.metadata, r.metadata),
    tags = coalesce(o.tags, r.tags),
    revision = CASE WHEN o.forced THEN o.revision ELSE greatest(r.revision, o.revision) END,
    object_version = CASE WHEN o.forced THEN o.object_version ELSE greatest(r.object_version, o.object_version) END,
    shard = o.shard,
    limit_key = o.limit_key,
    parents = o.parents,
    awaited_parents = CASE WHEN o.parents IS NOT NULL THEN delta_awaited_parents(o.parents, r.parents, r.awaited_parents) END,
    dispatch_at = CASE
        WHEN r.dispatch_at IS NULL AND r.queued_at IS NOT NULL AND r.limit_key IS DISTINCT FROM o.limit_key THEN now()
        WHEN r.dispatch_at IS NULL AND r.queued_at IS NULL AND r.awaited_parents IS NOT NULL AND r.parents IS DISTINCT FROM o.parents THEN now()
        ELSE r.dispatch_at END,
    written_by = pg_current_xact_id(),
    informed_by = pg_current_xact_id()
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[])
RETURNING r.*;
