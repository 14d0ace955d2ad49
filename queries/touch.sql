-- Touches of resources because a parent has changed (ObjectSettings.TouchedBy). An outcome notes the parent in delta_touch, see WriteOutcomes. Clients of the children's kind
-- read which children are still to be touched, touch them, and forget the parent when none is left. If a client dies in between, another one reads them again: progress is
-- kept only in delta_touch and in the children themselves.

-- name: LeaseTouches :many
-- A page of the parents that have changed. Other clients leave them until the lease ends; it passes if this client
-- dies. Two clients that touch at the same time still touch each child once.
UPDATE delta_touch t SET look_at = now() + @lease::interval
WHERE t.kind = @kind AND t.parent = ANY (ARRAY(
    SELECT d.parent FROM delta_touch d WHERE d.kind = @kind AND d.look_at <= now()
    ORDER BY d.look_at LIMIT @page::integer FOR UPDATE SKIP LOCKED
))
RETURNING t.parent, t.changed_at;

-- name: TouchableChildren :many
-- The children of some parents, each as kind/id, that have to be touched: they are synced, degraded or being worked,
-- and neither their latest call of Work nor their generation has begun since the parent was synced. Others are worked
-- anyway, or have seen the change. Children are found by their parents alone: the kind is compared in a way that no
-- index has, because otherwise a plan may read all rows of the kind.
SELECT i.parent::text AS parent, i.changed_at::timestamptz AS changed_at, c.id
FROM (SELECT unnest(@parents::text[]) AS parent, unnest(@changed_ats::timestamptz[]) AS changed_at) i
CROSS JOIN LATERAL (
    SELECT d.id FROM delta_resource d
    WHERE d.parents @> ARRAY[i.parent COLLATE "C"] AND d.parents IS NOT NULL AND d.kind || '' = @kind::text
      AND d.state IN ('pending', 'synced', 'degraded') AND greatest(d.generation_at, d.attempted_at) < i.changed_at
    LIMIT @page::integer
) c
LIMIT @page::integer;

-- name: TouchChildren :many
-- pending, synced or degraded -> scheduled or expired, at once, in a new generation: as TouchResources, but not for
-- those that have seen the change meanwhile, and with a lower priority than informs. It says nothing about the object,
-- so written_by stays. Locked rows are skipped: the next look finds them.
WITH o AS MATERIALIZED (
    SELECT i.id, i.changed_at
    FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@changed_ats::timestamptz[]) AS changed_at) i
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d
        WHERE d.id = i.id AND d.state IN ('pending', 'synced', 'degraded') AND greatest(d.generation_at, d.attempted_at) < i.changed_at
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
)
UPDATE delta_resource r
SET state = CASE WHEN r.state = 'synced' THEN 'expired' ELSE 'scheduled' END::delta_resource_state,
    generation = r.generation + 1,
    -- Not before the change, whatever the clock of a server says that has taken over: the next look would find the child again.
    generation_at = greatest(now(), o.changed_at),
    carrier = NULL,
    attempt = 0,
    snoozes = 0,
    priority = greatest(r.priority, @priority::smallint),
    due_at = now(),
    dispatch_at = now()
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[])
RETURNING r.id;

-- name: EndTouches :exec
-- Forgets parents with all children touched, and makes the others due after a wait. A parent that has changed since it
-- was leased is left: its children are read again. A locked parent is changing.
WITH o AS MATERIALIZED (
    SELECT i.parent, i.finished
    FROM (
        SELECT unnest(@parents::text[]) AS parent, unnest(@changed_ats::timestamptz[]) AS changed_at, unnest(@finished::boolean[]) AS finished
    ) i
    CROSS JOIN LATERAL (
        SELECT d.parent FROM delta_touch d WHERE d.kind = @kind AND d.parent = i.parent AND d.changed_at = i.changed_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ) l
),
gone AS (
    DELETE FROM delta_touch t USING o WHERE o.finished AND t.kind = @kind AND t.parent = o.parent
)
UPDATE delta_touch t SET look_at = now() + @wait::interval FROM o WHERE NOT o.finished AND t.kind = @kind AND t.parent = o.parent;

-- name: ForgetTouches :exec
-- No parents touch the kind any more.
DELETE FROM delta_touch WHERE kind = @kind;

-- name: MeasureTouches :many
-- How many parents have changed and still have children to touch, by the kind of the children, and when the first of
-- them changed. Counting ends at a bound.
SELECT c.name AS kind, t.count, t.oldest::timestamptz AS oldest, (now() - t.oldest)::interval AS age
FROM delta_controller c
CROSS JOIN LATERAL (
    SELECT count(*) AS count, min(l.changed_at) AS oldest
    FROM (SELECT d.changed_at FROM delta_touch d WHERE d.kind = c.name ORDER BY d.look_at LIMIT @most::bigint) l
) t
WHERE t.count > 0
ORDER BY c.name;
