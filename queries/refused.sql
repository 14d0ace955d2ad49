-- Objects that listings named and that cannot be taken.

-- name: RecordRefused :execrows
-- Up to so many of a kind, or of its shard, more or less: a listing in which all are refused must not fill the database.
INSERT INTO delta_refused AS f (kind, shard, object_id, rule, object, resource_hash)
SELECT @kind, @shard, i.object_id, i.rule, nullif(i.object, ''), r.hash
FROM (
    SELECT DISTINCT ON (u.object_id) u.* FROM (
        SELECT unnest(@object_ids::text[]) AS object_id, unnest(@rules::text[]) AS rule, unnest(@objects::bytea[]) AS object
    ) u
) i
LEFT JOIN delta_resource r ON r.kind = @kind AND r.object_id = i.object_id
WHERE (SELECT count(*) FROM delta_refused c WHERE c.kind = @kind AND c.shard = @shard) < @most::bigint
   OR EXISTS (SELECT FROM delta_refused c WHERE c.kind = @kind AND c.shard = @shard AND c.object_id = i.object_id)
ON CONFLICT (kind, shard, object_id) DO UPDATE
SET rule = excluded.rule, object = excluded.object, resource_hash = excluded.resource_hash, last_refused_at = now();

-- name: HasRefused :one
SELECT EXISTS (SELECT FROM delta_refused WHERE kind = @kind AND shard = @shard) AS refused;

-- name: ForgetTaken :exec
DELETE FROM delta_refused WHERE kind = @kind AND shard = @shard AND object_id = ANY (@object_ids::text[]);

-- name: ForgetUnlisted :exec
-- After a complete listing: what it did not refuse it has taken, or did not name.
DELETE FROM delta_refused WHERE kind = @kind AND shard = @shard AND last_refused_at < @began;

-- name: RefusedToRetry :many
-- Those that a pass did not name, of whose objects nothing newer was informed.
SELECT f.object_id, f.object FROM delta_refused f LEFT JOIN delta_resource r ON r.kind = f.kind AND r.object_id = f.object_id
WHERE f.kind = @kind AND f.shard = @shard AND f.last_refused_at < @began AND f.object IS NOT NULL AND f.resource_hash IS NOT DISTINCT FROM r.hash
ORDER BY f.object_id;

-- name: ListRefused :many
SELECT kind, shard, object_id, rule, refused_at, last_refused_at FROM delta_refused WHERE kind = @kind OR @kind = ''
ORDER BY kind, shard, object_id LIMIT @most::integer;

-- name: CountRefused :many
SELECT kind, count(*) AS count FROM delta_refused GROUP BY kind ORDER BY kind;
