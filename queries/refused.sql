-- Objects that listings named and that cannot be taken.

-- name: RecordRefused :one
-- About so many of a kind, or of its shard: a listing with only refused objects must not fill the database. Returns how
-- many were noted, and how many of those with their object.
WITH noted AS (
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
    SET rule = excluded.rule, object = excluded.object, resource_hash = excluded.resource_hash, last_refused_at = now()
    RETURNING f.object IS NOT NULL AS is_kept
)
SELECT count(*) AS noted, count(*) FILTER (WHERE n.is_kept) AS kept FROM noted n;

-- name: ForgetInformed :exec
-- Removes refused objects if a newer object was informed in another way, of the same shard: that one was taken.
DELETE FROM delta_refused f USING delta_resource r
WHERE f.kind = @kind AND f.shard = @shard AND r.kind = f.kind AND r.object_id = f.object_id AND r.hash IS DISTINCT FROM f.resource_hash
  AND (f.shard = '' OR r.shard = f.shard);

-- name: ForgetLeft :one
-- The kind is listed by shards (named) or as a whole, and listings of the other sort have not run for a while: during a
-- rolling deploy both run. If the listings that run have listed the kind since, this forgets refused objects, withheld
-- deletions and cursors of the others. If those run again, they begin with everything. Without that condition, an
-- object that was refused and forgotten here would never be listed again, because it is older than their cursor.
--
-- Listings by shards have succeeded since if each shard has; a listing of the whole kind, which calls this, if it began
-- later. The row of the whole kind stays, because for a kind with shards it has the state of naming them; so do the
-- rows of paused shards.
WITH quiet AS MATERIALIZED (
    SELECT s.shard, s.paused, greatest(
        (SELECT max(f.last_refused_at) FROM delta_refused f WHERE f.kind = s.kind AND f.shard = s.shard),
        (SELECT w.seen_at FROM delta_withheld w WHERE w.kind = s.kind AND w.shard = s.shard)
    ) AS noted_at
    FROM delta_shard s
    WHERE s.kind = @kind AND (s.shard = '') = @named::boolean
      AND EXISTS (SELECT FROM delta_shard l WHERE l.kind = s.kind AND (l.shard <> '') = @named::boolean AND l.gone_at IS NULL)
      AND coalesce((SELECT i.started_at FROM delta_inform i WHERE i.kind = s.kind AND i.shard = s.shard ORDER BY i.id DESC LIMIT 1) < now() - @quiet::interval, TRUE)
),
over AS MATERIALIZED (
    SELECT q.shard, q.paused FROM quiet q
    WHERE q.noted_at IS NULL
       OR (NOT @named::boolean AND q.noted_at < @began::timestamptz)
       OR (@named::boolean AND NOT EXISTS (
            SELECT FROM delta_shard s WHERE s.kind = @kind AND s.shard <> '' AND s.gone_at IS NULL AND coalesce(s.succeeded_at <= q.noted_at, TRUE)
       ))
),
refused AS (
    DELETE FROM delta_refused f WHERE f.kind = @kind AND f.shard IN (SELECT o.shard FROM over o) RETURNING f.object_id
),
withheld AS (
    DELETE FROM delta_withheld w WHERE w.kind = @kind AND w.shard IN (SELECT o.shard FROM over o) RETURNING w.shard
),
reset AS (
    UPDATE delta_shard s SET last_inform_time = '1970-01-01 00:00:00Z', inform_cursor = '', inform_cursor_at = NULL
    WHERE s.kind = @kind AND s.shard IN (SELECT o.shard FROM over o WHERE @named::boolean OR o.paused)
      AND (s.last_inform_time > '1970-01-01 00:00:00Z' OR s.inform_cursor <> '')
    RETURNING s.shard
),
removed AS (
    DELETE FROM delta_shard s WHERE s.kind = @kind AND s.shard IN (SELECT o.shard FROM over o WHERE NOT @named::boolean AND NOT o.paused) RETURNING s.shard
),
passes AS (
    DELETE FROM delta_inform i USING removed o WHERE i.kind = @kind AND i.shard = o.shard
)
SELECT (SELECT count(*) FROM refused) AS refused, (SELECT count(*) FROM withheld) AS withheld,
    ((SELECT count(*) FROM reset) + (SELECT count(*) FROM removed))::bigint AS cursors;

-- name: HasRefused :one
SELECT EXISTS (SELECT FROM delta_refused WHERE kind = @kind AND shard = @shard) AS refused;

-- name: ForgetTaken :exec
DELETE FROM delta_refused WHERE kind = @kind AND shard = @shard AND object_id = ANY (@object_ids::text[]);

-- name: ForgetUnlisted :exec
-- After a complete listing: it has taken, or did not name, each object that it did not refuse.
DELETE FROM delta_refused WHERE kind = @kind AND shard = @shard AND last_refused_at < @began;

-- name: RefusedToRetry :many
-- Refused objects that a pass did not name, unless a newer object was informed.
SELECT f.object_id, f.object FROM delta_refused f LEFT JOIN delta_resource r ON r.kind = f.kind AND r.object_id = f.object_id
WHERE f.kind = @kind AND f.shard = @shard AND f.last_refused_at < @began AND f.object IS NOT NULL AND f.resource_hash IS NOT DISTINCT FROM r.hash
ORDER BY f.object_id;

-- name: ListRefused :many
-- Refused objects, unless a newer object was informed since (ForgetInformed).
SELECT f.kind, f.shard, f.object_id, f.rule, f.refused_at, f.last_refused_at, (f.object IS NOT NULL)::boolean AS kept FROM delta_refused f
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
