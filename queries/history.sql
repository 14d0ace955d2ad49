-- The history of passes.

-- name: BeginInform :one
-- An earlier try of the same run that did not end has lost its worker.
WITH lost AS (
    UPDATE delta_inform SET ended_at = now(), error = 'its worker was lost'
    WHERE kind = @kind AND run_id = @run_id AND ended_at IS NULL AND @run_id::text <> ''
),
trimmed AS (
    DELETE FROM delta_inform WHERE kind = @kind
        AND id <= (SELECT o.id FROM delta_inform o WHERE o.kind = @kind ORDER BY o.id DESC LIMIT 1 OFFSET @kept)
)
INSERT INTO delta_inform (kind, trigger, full_listing, workflow_id, run_id, attempt)
VALUES (@kind, @trigger, @full_listing, @workflow_id, @run_id, @attempt)
RETURNING id;

-- name: EndInform :exec
UPDATE delta_inform
SET ended_at = now(), listed = @listed, new = @new, changed = @changed, unchanged = @unchanged, stale = @stale,
    refused = @refused, deleted = @deleted, withheld = @withheld, error = @error
WHERE id = @id;

-- name: ListInforms :many
-- The latest first.
SELECT * FROM delta_inform WHERE kind = @kind OR @kind = '' ORDER BY id DESC LIMIT @most::integer;
