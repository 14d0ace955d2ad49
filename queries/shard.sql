-- How far the listings of a kind have come, shard by shard; the shard '' is the whole kind.

-- name: GetShard :one
SELECT * FROM delta_shard WHERE kind = @kind AND shard = @shard;

-- name: ListShards :many
SELECT * FROM delta_shard ORDER BY kind, shard;

-- name: MoveInformCursor :execrows
-- After a complete pass. A cursor never moves back, and is never later than now, because a time ahead would hide
-- objects that are created until then. Of passes that ran side by side, the position of the one that began last counts.
-- A cursor that was ahead of the clock when the pass began, because the clock was set back or another database took
-- over, does not count: such a pass listed everything.
--
-- A pass that went on from a cursor (continued) moves none that was reset meanwhile (ForgetLeft), and inserts no row,
-- because it has not listed the objects before its cursor.
INSERT INTO delta_shard AS s (kind, shard, last_inform_time, inform_cursor, inform_cursor_at, last_full_listing)
SELECT @kind::text, @shard::text, least(@last_inform_time::timestamptz, now()), coalesce(sqlc.narg(cursor)::text, ''),
    CASE WHEN sqlc.narg(cursor)::text IS NOT NULL THEN @began::timestamptz END, CASE WHEN @complete::boolean THEN @began::timestamptz END
WHERE NOT @continued::boolean OR EXISTS (SELECT FROM delta_shard b WHERE b.kind = @kind::text AND b.shard = @shard::text)
ON CONFLICT (kind, shard) DO UPDATE
SET last_inform_time = least(now(), greatest(
        excluded.last_inform_time, CASE WHEN s.last_inform_time - @overlap::interval <= @began::timestamptz THEN s.last_inform_time END)),
    inform_cursor = CASE WHEN @began::timestamptz >= coalesce(CASE WHEN s.inform_cursor_at <= now() THEN s.inform_cursor_at END, '-infinity')
        THEN coalesce(sqlc.narg(cursor)::text, s.inform_cursor) ELSE s.inform_cursor END,
    inform_cursor_at = greatest(CASE WHEN s.inform_cursor_at <= now() THEN s.inform_cursor_at END, excluded.inform_cursor_at),
    last_full_listing = greatest(CASE WHEN s.last_full_listing <= now() THEN s.last_full_listing END, excluded.last_full_listing)
WHERE NOT @continued::boolean OR s.last_inform_time > '1970-01-01 00:00:00Z' OR s.inform_cursor <> '';

-- name: NameShards :many
-- The controller has named these shards, so they are live, and all others of the kind are gone: those that it named
-- before, and those that resources are left of. A withheld deletion, or a decision, of a shard that comes back or is
-- gone now had other reasons, and is forgotten. Returns every shard of the kind.
--
-- The shards of resources are looked up one after the other in an index without deleted ones, so that no forgotten row
-- is read.
WITH RECURSIVE said AS (
    (SELECT r.shard FROM delta_resource r WHERE r.kind = @kind AND NOT r.is_deleted AND r.shard IS NOT NULL ORDER BY r.shard LIMIT 1)
    UNION ALL
    SELECT (SELECT r.shard FROM delta_resource r WHERE r.kind = @kind AND NOT r.is_deleted AND r.shard > s.shard ORDER BY r.shard LIMIT 1)
    FROM said s WHERE s.shard IS NOT NULL
),
every AS (
    SELECT unnest(@shards::text[]) AS shard
    UNION SELECT s.shard FROM said s WHERE s.shard IS NOT NULL
    UNION SELECT s.shard FROM delta_shard s WHERE s.kind = @kind AND s.shard <> ''
),
written AS (
    INSERT INTO delta_shard AS s (kind, shard, gone_at)
    SELECT @kind, e.shard, CASE WHEN e.shard <> ALL (@shards::text[]) THEN now() END FROM every e ORDER BY e.shard
    ON CONFLICT (kind, shard) DO UPDATE SET gone_at = CASE WHEN excluded.gone_at IS NOT NULL THEN coalesce(s.gone_at, now()) END,
        named_at = CASE WHEN s.gone_at IS NOT NULL AND excluded.gone_at IS NULL THEN now() ELSE s.named_at END
    RETURNING *
),
-- As they were before this statement.
turned AS (
    DELETE FROM delta_withheld w USING written n
    WHERE w.kind = @kind AND w.shard = n.shard AND (n.gone_at IS NULL) IS DISTINCT FROM (
        SELECT b.gone_at IS NULL FROM delta_shard b WHERE b.kind = @kind AND b.shard = n.shard
    )
    RETURNING w.shard
)
SELECT w.shard, w.paused, w.gone_at, (w.shard IN (SELECT t.shard FROM turned t))::boolean AS forgot_withheld FROM written w ORDER BY w.shard;

-- name: NoteNaming :exec
-- The controller has named the shards of a kind without an error.
INSERT INTO delta_shard (kind, shard, succeeded_at) VALUES (@kind, '', now())
ON CONFLICT (kind, shard) DO UPDATE SET succeeded_at = excluded.succeeded_at, error = '';

-- name: ForgetShard :execrows
-- Removes a gone shard without resources, with the history of its passes and its refused objects, because no later pass
-- of it would trim them.
WITH forgotten AS (
    DELETE FROM delta_shard s WHERE s.kind = @kind AND s.shard = @shard AND s.gone_at IS NOT NULL AND NOT s.paused AND NOT EXISTS (
        SELECT FROM delta_resource r WHERE r.kind = @kind AND r.shard = @shard::text AND NOT r.is_deleted
    )
    RETURNING s.kind, s.shard
),
passes AS (
    DELETE FROM delta_inform i USING forgotten f WHERE i.kind = f.kind AND i.shard = f.shard
),
refused AS (
    DELETE FROM delta_refused x USING forgotten f WHERE x.kind = f.kind AND x.shard = f.shard
)
SELECT f.shard FROM forgotten f;

-- name: PauseShard :execrows
UPDATE delta_shard SET paused = @paused WHERE kind = @kind AND shard = @shard;
