-- Attempts by kind and minute.

-- name: AddFigures :exec
-- Adds what a client has counted of each kind, to the minute that was age ago and to the sums. Rows are written in one order by all clients, so that
-- they wait for each other and never in a circle. Durations are arrays, as text.
INSERT INTO delta_figure AS f (kind, minute, synced, finalized, failed, degraded, deleted, snoozed, undecodable, seconds, durations)
SELECT c.kind, m.minute, c.synced, c.finalized, c.failed, c.degraded, c.deleted, c.snoozed, c.undecodable, c.seconds, c.durations::bigint[]
FROM (
    SELECT unnest(@kinds::text[]) AS kind, unnest(@synced::bigint[]) AS synced,
        unnest(@finalized::bigint[]) AS finalized, unnest(@failed::bigint[]) AS failed, unnest(@degraded::bigint[]) AS degraded,
        unnest(@deleted::bigint[]) AS deleted, unnest(@snoozed::bigint[]) AS snoozed, unnest(@undecodable::bigint[]) AS undecodable,
        unnest(@seconds::double precision[]) AS seconds, unnest(@durations::text[]) AS durations
) c
CROSS JOIN (SELECT unnest(ARRAY['-infinity'::timestamptz, date_trunc('minute', now() - @age::interval)]) AS minute) m
ORDER BY c.kind COLLATE "C", m.minute
ON CONFLICT (kind, minute) DO UPDATE
SET synced = f.synced + excluded.synced, finalized = f.finalized + excluded.finalized, failed = f.failed + excluded.failed,
    degraded = f.degraded + excluded.degraded, deleted = f.deleted + excluded.deleted, snoozed = f.snoozed + excluded.snoozed,
    undecodable = f.undecodable + excluded.undecodable, seconds = f.seconds + excluded.seconds,
    durations = (SELECT array_agg(f.durations[i] + excluded.durations[i] ORDER BY i) FROM generate_subscripts(excluded.durations, 1) AS i);

-- name: ListFigures :many
-- The minutes of a kind, or of all kinds for an empty one.
SELECT f.* FROM delta_figure f
WHERE f.kind = ANY (CASE WHEN @kind::text = '' THEN ARRAY(SELECT c.name FROM delta_controller c) ELSE ARRAY[@kind::text] END)
  AND f.minute >= @since::timestamptz AND f.minute > '-infinity'
ORDER BY f.minute, f.kind;

-- name: SweepFigures :exec
-- Removes minutes that are too old: for each kind they are at the beginning of a range of the index.
DELETE FROM delta_figure f
WHERE (f.kind, f.minute) IN (
    SELECT o.kind, o.minute FROM delta_controller c JOIN delta_figure o ON o.kind = c.name
    WHERE o.minute > '-infinity' AND o.minute < now() - @kept::interval
    FOR UPDATE OF o SKIP LOCKED
);

-- name: SumFigures :many
-- All attempts of each kind that a client was started with, since the first.
SELECT c.name AS kind, coalesce(f.synced, 0)::bigint AS synced, coalesce(f.finalized, 0)::bigint AS finalized, coalesce(f.failed, 0)::bigint AS failed,
    coalesce(f.degraded, 0)::bigint AS degraded, coalesce(f.deleted, 0)::bigint AS deleted, coalesce(f.snoozed, 0)::bigint AS snoozed,
    coalesce(f.undecodable, 0)::bigint AS undecodable, coalesce(f.seconds, 0)::double precision AS seconds, coalesce(f.durations, '{}')::bigint[] AS durations
FROM delta_controller c LEFT JOIN delta_figure f ON f.kind = c.name AND f.minute = '-infinity'
ORDER BY c.name;
