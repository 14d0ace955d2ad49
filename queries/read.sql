-- name: ListResources :many
-- A page in the order of ids.
SELECT r.* FROM delta_resource r
WHERE r.id > @after_id AND delta_is_chosen(r, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb,
    @error::text)
ORDER BY r.id
LIMIT @batch::integer;

-- name: ListResourcesDescending :many
-- A page in the opposite order.
SELECT r.* FROM delta_resource r
WHERE r.id < @before_id AND delta_is_chosen(r, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb,
    @error::text)
ORDER BY r.id DESC
LIMIT @batch::integer;

-- name: ListFew :many
-- A page of few rows, in an order that no index has: late ones, or those with an error that people should see. Each
-- page looks at all of them, and reads those of the page. The page begins after a key of the order and an id: a row
-- that has changed meanwhile moves in the order, and no other does.
WITH few AS MATERIALIZED (
    SELECT c.id,
        (CASE WHEN @sort::text = 'error' THEN left(delta_latest_error(c.errors), 200) ELSE '' END COLLATE "C")::text AS key_text,
        CASE @sort::text
            WHEN 'changed' THEN greatest(c.generation_at, c.attempted_at, c.synced_at)
            WHEN 'due' THEN coalesce(c.due_at, c.claimed_until, '9999-12-31 00:00:00Z')
            ELSE '1970-01-01 00:00:00Z' END::timestamptz AS key_at
    FROM (
        SELECT d.* FROM delta_resource d WHERE NOT @late::boolean AND d.trouble IN ('degraded', 'failed', 'scheduled', 'deleted') AND delta_is_chosen(d, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb, @error::text)
        UNION ALL
        SELECT d.* FROM delta_resource d
        WHERE @late::boolean AND d.id = ANY (ARRAY(SELECT l.id FROM delta_late(@kinds::text[], NULL, @grace::interval, @longest::interval, NULL) AS l)) AND delta_is_chosen(d, @kinds::text[], @object_ids::text[], @namespaces::text[], @shards::text[], @states::text[], @tags::text[], @labels::jsonb, @error::text)
    ) c
), page AS (
    SELECT f.id, f.key_text, f.key_at FROM few f
    CROSS JOIN (SELECT @after_text::text AS key_text, @after_at::timestamptz AS key_at, @after_id::bigint AS id) a
    WHERE @first::boolean OR CASE WHEN @descending::boolean THEN (f.key_text, f.key_at, f.id) < (a.key_text, a.key_at, a.id)
        ELSE (f.key_text, f.key_at, f.id) > (a.key_text, a.key_at, a.id) END
    ORDER BY CASE WHEN @descending::boolean THEN f.key_text END DESC, CASE WHEN @descending::boolean THEN f.key_at END DESC,
        CASE WHEN @descending::boolean THEN f.id END DESC, f.key_text, f.key_at, f.id
    LIMIT @batch::integer
)
SELECT sqlc.embed(r), p.key_text, p.key_at
FROM page p JOIN delta_resource r ON r.id = p.id
ORDER BY CASE WHEN @descending::boolean THEN p.key_text END DESC, CASE WHEN @descending::boolean THEN p.key_at END DESC,
    CASE WHEN @descending::boolean THEN p.id END DESC, p.key_text, p.key_at, p.id;

-- name: CountResources :many
SELECT r.kind, r.state, count(*) AS count, count(*) FILTER (WHERE r.shard IS NULL) AS shardless FROM delta_resource r
WHERE (cardinality(@kinds::text[]) = 0 OR r.kind = ANY (@kinds::text[]))
  AND (cardinality(@namespaces::text[]) = 0 OR r.namespace = ANY (@namespaces::text[]))
GROUP BY r.kind, r.state
ORDER BY r.kind, r.state;

-- name: ListControllers :many
SELECT * FROM delta_controller ORDER BY name;

-- name: GetResource :one
SELECT sqlc.embed(r), EXISTS (SELECT FROM delta_controller c WHERE c.name = r.kind AND c.paused) AS kind_paused,
    (greatest(delta_snoozed_until(r.kind, r.namespace, r.id), now()) - now())::interval AS snoozed_for, now()::timestamptz AS now
FROM delta_resource r WHERE r.kind = @kind AND r.object_id = @object_id;

-- name: SampleResources :many
-- Resources by kind and state in some pages of the table, at random: in all of them where there are no more. share is
-- the part of the pages that is read. The cost does not grow with the table, and does not depend on whether Postgres
-- has ever analyzed it.
WITH sample AS MATERIALIZED (
    SELECT least(1, current_setting('block_size')::float8 * (@pages::bigint) / greatest(pg_relation_size('delta_resource'), 1))::float8 AS share
)
SELECT r.kind, r.state, count(*) AS count, count(*) FILTER (WHERE r.shard IS NULL) AS shardless, (SELECT s.share FROM sample s)::float8 AS share
FROM delta_resource r TABLESAMPLE SYSTEM ((SELECT 100 * s.share FROM sample s))
GROUP BY r.kind, r.state;

-- name: CountSmallKinds :many
-- Resources by kind and state of the kinds that are not named as large: of each, at most most are looked at. The index
-- is read from the kind's first row to its last, because for an equality Postgres may read a table that was not
-- analyzed as a whole.
SELECT k.kind::text AS kind, c.state, count(*) AS count, count(*) FILTER (WHERE c.shard IS NULL) AS shardless
FROM delta_kinds() AS k
CROSS JOIN LATERAL (
    SELECT n.kind, n.state, n.shard FROM delta_resource n WHERE (n.kind, n.object_id) >= (k.kind, '') AND n.kind <= k.kind ORDER BY n.kind, n.object_id LIMIT @most::integer
) c
WHERE k.kind <> ALL (@large::text[])
GROUP BY k.kind, c.state;

-- name: CountTroubled :many
-- Degraded and failed resources by kind, up to most of each.
SELECT k.kind::text AS kind, t.trouble::delta_resource_state AS state, count(*) FILTER (WHERE c.state = t.trouble) AS count, count(*) AS looked
FROM delta_kinds() AS k
CROSS JOIN unnest('{degraded,failed}'::delta_resource_state[]) AS t (trouble)
CROSS JOIN LATERAL (SELECT d.state FROM delta_resource d WHERE d.trouble = t.trouble AND d.kind = k.kind LIMIT @most::integer) c
GROUP BY k.kind, t.trouble;

-- name: CountLate :many
-- Late resources by kind, of the first most of each kind and priority.
SELECT l.kind::text AS kind, count(*) AS count, min(l.since)::timestamptz AS oldest, count(*) FILTER (WHERE l.unfinalized) AS unfinalized,
    coalesce(min(l.since) FILTER (WHERE l.unfinalized), now())::timestamptz AS oldest_unfinalized
FROM delta_late('{}', NULL, @grace::interval, @longest::interval, @most::integer) AS l
GROUP BY l.kind ORDER BY l.kind;

-- name: ResourceOfHash :one
SELECT id, object_id FROM delta_resource WHERE kind = @kind AND hashed_id = @hashed_id;

-- name: ListNamespaces :many
SELECT * FROM delta_namespace ORDER BY name;

-- name: ResourcesAwaited :many
-- The rows that callers wait for.
SELECT r.id, r.kind, r.object_id, r.state, r.generation, r.synced_generation,
    (r.awaited_parents IS NOT NULL AND r.dispatch_at IS NULL AND r.queued_at IS NULL AND NOT r.is_deleted)::boolean AS awaits_parent, r.awaited_parents,
    r.paused, EXISTS (SELECT FROM delta_controller c WHERE c.name = r.kind AND c.paused) AS kind_paused
FROM (SELECT unnest(@ids::bigint[]) AS id) i
CROSS JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.id = i.id LIMIT 1) r;

-- name: ListSnoozes :many
-- The kinds and namespaces that are snoozed, and for how long still.
SELECT TRUE AS is_kind, c.name, c.snoozed_until::timestamptz AS until, (c.snoozed_until - now())::interval AS lasts
FROM delta_controller c WHERE c.snoozed_until > now()
UNION ALL
SELECT FALSE, n.name, n.snoozed_until::timestamptz, (n.snoozed_until - now())::interval
FROM delta_namespace n WHERE n.snoozed_until > now()
ORDER BY 1 DESC, 2;

-- name: KeyOf :one
-- The limit key of a resource: how many rows have a slot of it, claimed or about to be, how many wait, of the first
-- 10,000, and since when this one waits. A limit of 0 is none.
SELECT r.limit_key, coalesce(c.key_concurrency, 0)::integer AS concurrency, coalesce(c.key_rate, 0)::double precision AS rate,
    (SELECT count(*) FROM delta_resource d WHERE d.kind = r.kind AND d.slot_key = r.limit_key) AS running,
    (SELECT count(*) FROM (
        SELECT FROM delta_resource d WHERE d.kind = r.kind AND d.limit_key = r.limit_key AND d.queued_at IS NOT NULL AND d.dispatch_at IS NULL AND NOT d.paused
        LIMIT 10000
    ) w) AS waiting,
    r.queued_at, (r.queued_at IS NOT NULL AND r.dispatch_at IS NULL)::boolean AS waits
FROM delta_resource r LEFT JOIN delta_controller c ON c.name = r.kind
WHERE r.kind = @kind AND r.object_id = @object_id AND r.limit_key IS NOT NULL;

-- name: CountQueued :many
-- How many rows wait for slots of their limit keys, by kind, how many keys they have, and since when the first of them
-- waits.
SELECT d.kind, count(*) AS count, count(DISTINCT d.limit_key) AS keys, min(d.queued_at)::timestamptz AS oldest
FROM delta_resource d
WHERE d.queued_at IS NOT NULL AND d.dispatch_at IS NULL AND NOT d.paused
GROUP BY d.kind ORDER BY d.kind;

-- name: UndecodableKinds :many
-- How many resources of each kind wait because the latest worker could not decode their objects: their latest error
-- belongs to no attempt, they were given to a worker in this generation, and their workflow could be started. It looks
-- at most at most resources of each kind.
SELECT k.kind::text AS kind, count(*) AS count
FROM delta_kinds() AS k
CROSS JOIN unnest('{scheduled,deleted}'::delta_resource_state[]) AS t (trouble)
CROSS JOIN LATERAL (
    SELECT d.errors[cardinality(d.errors)] AS error FROM delta_resource d WHERE d.trouble = t.trouble AND d.kind = k.kind LIMIT @most::integer
) r
WHERE r.error ->> 'attempt' = '0'
  AND NOT starts_with(r.error ->> 'error', @workflow_not_started::text)
  AND NOT starts_with(r.error ->> 'error', @batch_not_started::text)
GROUP BY k.kind;
