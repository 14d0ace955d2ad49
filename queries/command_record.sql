-- The commands that people have given.

-- name: RecordCommand :one
INSERT INTO delta_command (actor, command, kind, object_id, shard, namespace, filter)
VALUES (@actor, @command, @kind, @object_id, @shard, @namespace, @filter)
RETURNING id;

-- name: EndCommand :exec
UPDATE delta_command SET ended_at = now(), resources = sqlc.narg(resources), error = nullif(@error::text, '') WHERE id = @id AND ended_at IS NULL;

-- name: ListCommands :many
-- The latest first, of a kind or one of its resources, or of all.
SELECT c.* FROM delta_command c
WHERE (@kind::text = '' OR c.kind = @kind) AND (@object_id::text = '' OR c.object_id = @object_id) AND c.id < @before_id
ORDER BY c.id DESC LIMIT @batch::integer;

-- name: SweepCommands :exec
-- Removes some that are too old.
DELETE FROM delta_command c
WHERE c.id = ANY (ARRAY(SELECT o.id FROM delta_command o WHERE o.begun_at < now() - @kept::interval ORDER BY o.begun_at LIMIT 1000 FOR UPDATE SKIP LOCKED));
