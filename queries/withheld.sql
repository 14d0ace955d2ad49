-- Withheld deletions, and decisions about them.

-- name: Withhold :one
-- Notes how many resources a pass has left out. A decision about fewer resources does not hold for it.
INSERT INTO delta_withheld AS w (kind, shard, missing, total, reason) VALUES (@kind, @shard, @missing, @total, @reason)
ON CONFLICT (kind, shard) DO UPDATE
SET missing = excluded.missing,
    total = excluded.total,
    reason = excluded.reason,
    seen_at = now(),
    since = CASE WHEN w.decision IS NOT NULL AND excluded.missing > w.decided_missing THEN now() ELSE w.since END,
    decision = CASE WHEN excluded.missing <= w.decided_missing THEN w.decision END
RETURNING *;

-- name: LatelyWithheld :one
-- The latest count of a shard's resources that a pass may not delete, for a reason and within a time.
SELECT * FROM delta_withheld
WHERE kind = @kind AND shard = @shard AND reason = @reason AND decision IS DISTINCT FROM 'approved' AND seen_at > now() - @within::interval;

-- name: ForgetWithheld :many
-- A listing has left out no more than may be deleted, or the deletion was carried out, or no listing of this sort will
-- follow. Returns the withheld deletion, at most one row.
DELETE FROM delta_withheld WHERE kind = @kind AND shard = @shard RETURNING *;

-- name: DecideWithheld :one
-- Decides about the deletion as it was shown: no row means that nothing is withheld, or more than that by now.
UPDATE delta_withheld SET decision = @decision::text, decided_missing = @missing, decided_at = now()
WHERE kind = @kind AND shard = @shard AND missing <= @missing
RETURNING *;

-- name: ListWithheld :many
SELECT * FROM delta_withheld ORDER BY kind, shard;
