-- name: GroupErrors :many
-- The latest errors of resources of a kind that are degraded or wait to be tried again, grouped by their first lines
-- without the parts that differ between resources: quoted texts, UUIDs and other long hexadecimal numbers, and numbers.
-- The most frequent are first, each with its latest text and the latest ids. It reads at most most resources, by the
-- index of trouble; read is how many.
WITH latest AS (
    SELECT r.object_id, r.state = 'degraded' AS is_degraded, r.errors[cardinality(r.errors)] AS error
    FROM delta_resource r
    WHERE r.kind = @kind AND r.trouble IN ('degraded', 'failed') AND r.state IN ('degraded', 'failed') AND cardinality(r.errors) > 0
    LIMIT @most::integer
), worded AS (
    SELECT l.object_id, l.is_degraded, left(l.error ->> 'error', 1000) AS text, (l.error ->> 'at')::timestamptz AS at,
        left(regexp_replace(regexp_replace(split_part(l.error ->> 'error', E'\n', 1), '"[^"]*"', '"…"', 'g'),
            '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F-]{22}|[0-9a-fA-F]{12,}|[0-9]+', '#', 'g'), 300) AS pattern
    FROM latest l
)
SELECT w.pattern::text AS pattern, count(*) AS count, count(*) FILTER (WHERE w.is_degraded) AS degraded, min(w.at)::timestamptz AS first_at,
    max(w.at)::timestamptz AS last_at, ((array_agg(w.object_id ORDER BY w.at DESC))[1:3])::text[] AS object_ids,
    ((array_agg(w.text ORDER BY w.at DESC))[1])::text AS text, (sum(count(*)) OVER ())::bigint AS read
FROM worded w
GROUP BY w.pattern ORDER BY count(*) DESC, w.pattern LIMIT @groups::integer;
