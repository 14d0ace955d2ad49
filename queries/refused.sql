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

-- name: ForgetInformed :exec
-- Those of whose objects something newer was informed in another way, of the same shard: it was taken.
DELETE FROM delta_refused f USING delta_resource r
WHERE f.kind = @kind AND f.shard = @shard AND r.kind = f.kind AND r.object_id = f.object_id AND r.hash IS DISTINCT FROM f.resource_hash
  AND (f.shard = '' OR r.shard = f.shard);

-- name: ForgetLeft :one
-- What was refused or withheld by listings of another kind than those that run now: of the whole kind, where its controller names shards (named), or of
-- shards, where it no longer does. All that is listed now was listed since, and the others have not run for a while: in a rolling deploy
-- both run, and each has its own cursors.
WITH left_over AS MATERIALIZED (
    SELECT l.shard, l.noted_at FROM (
        SELECT f.shard, max(f.last_refused_at) AS noted_at FROM delta_refused f WHERE f.kind = @kind GROUP BY f.shard
        UNION ALL SELECT w.shard, w.seen_at FROM delta_withheld w WHERE w.kind = @kind
    ) l
    WHERE (l.shard = '') = @named::boolean
      AND NOT EXISTS (SELECT FROM delta_inform i WHERE i.kind = @kind AND i.shard = l.shard AND i.started_at > now() - @quiet::interval)
      AND EXISTS (SELECT FROM delta_shard s WHERE s.kind = @kind AND (s.shard <> '') = @named::boolean AND s.gone_at IS NULL)
      AND NOT EXISTS (
        SELECT FROM delta_shard s WHERE s.kind = @kind AND (s.shard <> '') = @named::boolean AND s.gone_at IS NULL
          AND coalesce(s.succeeded_at <= l.noted_at, TRUE)
      )
),
refused AS (
    DELETE FROM delta_refused f WHERE f.kind = @kind AND f.shard IN (SELECT l.shard FROM left_over l) RETURNING f.object_id
),
withheld AS (
    DELETE FROM delta_withheld w WHERE w.kind = @kind AND w.shard IN (SELECT l.shard FROM left_over l) RETURNING w.shard
)
SELECT (SELECT count(*) FROM refused) AS refused, (SELECT count(*) FROM withheld) AS withheld;

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
-- Without those of whose objects something newer was informed since (ForgetInformed).
SELECT f.kind, f.shard, f.object_id, f.rule, f.refused_at, f.last_refused_at FROM delta_refused f
WHERE (f.kind = @kind OR @kind = '') AND NOT EXISTS (
    SELECT FROM delta_resource r WHERE r.kind = f.kind AND r.object_id = f.object_id AND r.hash IS DISTINCT FROM f.resource_hash
      AND (f.shard = '' OR r.shard = f.shard)
)
ORDER BY f.kind, f.shard, f.object_id LIMIT @most::integer;

-- name: CountRefused :many
SELECT f.kind, count(*) AS count FROM delta_refused f
WHERE NOT EXISTS (
    SELECT FROM delta_resource r WHERE r.kind = f.kind AND r.object_id = f.object_id AND r.hash IS DISTINCT FROM f.resource_hash
      AND (f.shard = '' OR r.shard = f.shard)
)
GROUP BY f.kind ORDER BY f.kind;
