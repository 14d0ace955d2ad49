-- name: CountListed :one
-- How much a run has listed.
SELECT count(*) FROM delta_listing l WHERE l.pass = @pass;

-- name: UnsettledOfPage :one
-- How many of a page of what a run has listed have not settled, and where the page ends; nothing is listed after the last page.
WITH page AS MATERIALIZED (
    SELECT l.object_id FROM delta_listing l WHERE l.pass = @pass AND l.object_id > @after_object_id ORDER BY l.object_id LIMIT @page::integer
)
SELECT count(*) AS listed, coalesce(max(p.object_id), '')::text AS last_object_id, count(r.id) AS unsettled
FROM page p
LEFT JOIN LATERAL (
    SELECT d.id FROM (SELECT o.id, o.state, o.paused FROM delta_resource o WHERE o.kind = @kind AND o.object_id = p.object_id LIMIT 1) d
    WHERE d.state IN ('scheduled', 'pending', 'failed', 'expired') AND NOT d.paused
) r ON TRUE;
