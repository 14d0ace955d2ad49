-- Objects that are encoded again, with the codec and the keys of the client that asks.

-- name: StoredObjects :many
-- A page of objects in their stored form, in the order of an index. There is no condition on the kind: with one, Postgres read and sorted the whole kind for each
-- page of a table that it had not analyzed.
SELECT r.id, r.kind, r.object_id, r.hash, r.object, r.synced_object FROM delta_resource r
WHERE (r.kind, r.object_id) > (@after_kind::text, @after_object_id::text)
ORDER BY r.kind, r.object_id LIMIT @most::integer;

-- name: StoredObjectsOf :many
SELECT r.id, r.kind, r.object_id, r.hash, r.object, r.synced_object FROM delta_resource r WHERE r.id = ANY (@ids::bigint[]) ORDER BY r.id;

-- name: ReencodeObjects :many
-- Replaces the stored forms of objects, and their hashes wherever those are kept to be compared. It begins no generation, and changes nothing else.
-- Returns the rows that were written: the others are locked, gone, or have changed since they were read.
WITH n AS MATERIALIZED (
    SELECT i.*, d.hash AS old_hash, d.kind, d.object_id
    FROM (
        SELECT unnest(@ids::bigint[]) AS id, unnest(@old_objects::jsonb[]) AS old_object, nullif(unnest(@old_synced_objects::text[]), '')::jsonb AS old_synced,
            unnest(@objects::jsonb[]) AS object, nullif(unnest(@synced_objects::text[]), '')::jsonb AS synced, unnest(@hashes::bytea[]) AS hash
    ) i
    CROSS JOIN LATERAL (
        SELECT r.hash, r.kind, r.object_id FROM delta_resource r
        WHERE r.id = i.id AND r.object = i.old_object AND r.synced_object IS NOT DISTINCT FROM i.old_synced
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) d
),
refused AS (
    UPDATE delta_refused f SET resource_hash = n.hash FROM n WHERE f.kind = n.kind AND f.object_id = n.object_id AND f.resource_hash = n.old_hash
)
UPDATE delta_resource r
SET object = n.object, synced_object = n.synced, hash = n.hash,
    touched_hash = CASE WHEN r.touched_hash = r.hash THEN n.hash ELSE r.touched_hash END
FROM n
WHERE r.id = n.id AND r.id = ANY (@ids::bigint[])
RETURNING r.id;

-- name: RefusedObjects :many
-- A page of refused objects that are kept, in the order of the primary key. As with StoredObjects, there is no condition on the kind.
SELECT f.kind, f.shard, f.object_id, f.object FROM delta_refused f
WHERE (f.kind, f.shard, f.object_id) >= (@from_kind::text, @from_shard::text, @from_object_id::text) AND f.object IS NOT NULL
ORDER BY f.kind, f.shard, f.object_id LIMIT @most::integer;

-- name: ReencodeRefused :execrows
UPDATE delta_refused SET object = @object WHERE kind = @kind AND shard = @shard AND object_id = @object_id AND object = @old_object::bytea;
