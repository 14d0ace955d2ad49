-- The history of passes.

-- name: BeginInform :one
-- An earlier try of the same run that did not end has lost its worker: lost_attempt is which try that was, 0 where there was none. It was of the
-- same shard: the passes of other shards, a hundred of each, are not read.
WITH lost AS (
    UPDATE delta_inform SET ended_at = now(), error = 'its worker was lost'
    WHERE kind = @kind AND shard = @shard AND run_id = @run_id AND ended_at IS NULL AND @run_id::text <> ''
    RETURNING attempt, ended_at - started_at AS lasted
),
trimmed AS (
    DELETE FROM delta_inform WHERE kind = @kind AND shard = @shard
        AND id <= (SELECT o.id FROM delta_inform o WHERE o.kind = @kind AND o.shard = @shard ORDER BY o.id DESC LIMIT 1 OFFSET @kept)
)
INSERT INTO delta_inform (kind, shard, trigger, full_listing, workflow_id, run_id, attempt)
VALUES (@kind, @shard, @trigger, @full_listing, @workflow_id, @run_id, @attempt)
RETURNING id, (SELECT coalesce(max(l.attempt), 0) FROM lost l)::integer AS lost_attempt,
    (SELECT coalesce(max(l.lasted), '0') FROM lost l)::interval AS lost_after;

-- name: EndInform :exec
-- Also where its shard is shown.
WITH ended AS (
    UPDATE delta_inform
    SET ended_at = now(), listed = @listed, new = @new, changed = @changed, unchanged = @unchanged, stale = @stale,
        refused = @refused, unkept = @unkept, deleted = @deleted, withheld = @withheld, error = @error
    WHERE id = @id
    RETURNING kind, shard, ended_at, error
)
INSERT INTO delta_shard (kind, shard, succeeded_at, failed_at, error)
SELECT kind, shard, CASE WHEN error = '' THEN ended_at END, CASE WHEN error <> '' THEN ended_at END, error FROM ended
ON CONFLICT (kind, shard) DO UPDATE
SET succeeded_at = coalesce(excluded.succeeded_at, delta_shard.succeeded_at), failed_at = coalesce(excluded.failed_at, delta_shard.failed_at),
    error = excluded.error;

-- name: LatestInform :one
-- The latest pass of a kind; 0 where there was none.
SELECT coalesce(max(i.id), 0)::bigint AS id FROM delta_inform i WHERE i.kind = @kind;

-- name: PassesOfRun :many
-- What the passes of the shards of a run have come to that have ended, each with its best try. None of them began before another pass.
SELECT i.run_id, max(i.listed)::bigint AS listed, max(i.new + i.changed)::bigint AS scheduled FROM delta_inform i
WHERE i.kind = @kind AND i.id > @after AND starts_with(i.workflow_id, @workflow_id::text)
GROUP BY i.run_id;

-- name: ListInforms :many
-- The latest first.
SELECT * FROM delta_inform WHERE (kind = @kind OR @kind = '') AND (shard = @shard OR @shard = '') ORDER BY id DESC LIMIT @most::integer;
