-- What the page of one resource shows beside its row. These only read.

-- name: PreviousObject :one
-- An object, and the version that was synced last: is_synced is set if that is another. Encoded versions of one object are different here.
SELECT delta_logs_changes(r.kind)::boolean AS is_logged, coalesce(r.synced_object <> r.object, FALSE)::boolean AS is_synced, r.object, r.synced_object
FROM delta_resource r
WHERE r.kind = @kind AND r.object_id = @object_id
LIMIT 1;

-- name: PreviousVersions :many
-- The latest versions of an object in its 100 latest entries of the log that are not the stored one, the latest first.
SELECT e.before, e.at
FROM (
    SELECT c.id, c.at, c.before FROM delta_change c WHERE c.kind = @kind AND c.object_id = @object_id ORDER BY c.id DESC LIMIT 100
) e
WHERE e.before <> @object::jsonb
ORDER BY e.id DESC
LIMIT @most::integer;

-- name: RelatedResources :many
-- The resources that have to do with one, so many of each relation at most. Parents that are not there have no state. Sets that a LIMIT ends are made first, and read no further than
-- that: with the LIMIT in them, a plan may read the table until it has found so many.
--
-- Members of its batch are looked for among the rows of its kind that were leased last, 2000 of each priority, off the index of the dispatcher.
WITH own AS MATERIALIZED (
    SELECT r.id, r.kind, r.limit_key, r.parents, r.awaited_parents, r.workflow_id FROM delta_resource r WHERE r.kind = @kind AND r.object_id = @object_id LIMIT 1
),
children AS MATERIALIZED (
    SELECT d.id, d.kind, d.object_id, d.state, d.awaited_parents FROM delta_resource d
    WHERE d.parents @> ARRAY[@resource::text] AND d.parents IS NOT NULL
),
holders AS MATERIALIZED (
    SELECT d.id, d.kind, d.object_id, d.state FROM delta_resource d
    WHERE d.kind = @kind AND d.slot_key = (SELECT o.limit_key FROM own o) AND d.slot_key IS NOT NULL
)
SELECT 'parent'::text AS relation, split_part(p.resource, '/', 1)::text AS kind, substr(p.resource, strpos(p.resource, '/') + 1)::text AS object_id,
    coalesce(d.state::text, '')::text AS state, coalesce(p.resource = ANY (o.awaited_parents), FALSE)::boolean AS is_awaited
FROM own o
CROSS JOIN LATERAL unnest(o.parents) AS p (resource)
LEFT JOIN LATERAL (
    SELECT r.state FROM delta_resource r
    WHERE r.kind = split_part(p.resource, '/', 1) AND r.object_id = substr(p.resource, strpos(p.resource, '/') + 1)
    LIMIT 1
) d ON TRUE
UNION ALL
(
    SELECT 'child', c.kind, c.object_id, c.state::text, (@resource::text = ANY (c.awaited_parents)) IS TRUE FROM children c LIMIT @most::integer
)
UNION ALL
(
    SELECT 'holder', h.kind, h.object_id, h.state::text, FALSE FROM holders h WHERE h.id <> (SELECT o.id FROM own o) LIMIT @most::integer
)
UNION ALL
(
    SELECT 'waiter', w.kind, w.object_id, w.state::text, FALSE
    FROM own o
    CROSS JOIN LATERAL (
        SELECT d.kind, d.object_id, d.state FROM delta_resource d
        WHERE d.kind = @kind AND d.limit_key = o.limit_key AND d.queued_at IS NOT NULL AND d.dispatch_at IS NULL AND NOT d.paused AND d.id <> o.id
        ORDER BY d.priority, d.queued_at
        LIMIT @most::integer
    ) w
)
UNION ALL
(
    SELECT 'member', b.kind, b.object_id, b.state::text, FALSE
    FROM own o
    CROSS JOIN unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT d.id, d.kind, d.object_id, d.state, d.workflow_id, d.finalized, d.due_at FROM delta_resource d
        WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at <= now() + @longest::interval AND NOT d.paused
        ORDER BY d.dispatch_at DESC
        LIMIT 2000
    ) b
    WHERE starts_with(o.workflow_id, @batch_prefix::text) AND b.workflow_id = o.workflow_id AND b.id <> o.id
      AND (delta_is_worked(b.state, b.finalized, b.due_at) OR delta_awaits_attempt(b.state, b.finalized))
    LIMIT @most::integer
);
