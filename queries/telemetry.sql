-- What one client at a time measures for all, for telemetry.

-- name: LeaseMeasuring :execrows
-- The client that measures goes on to do so, and another takes over when the lease has passed. No row means that another client does.
UPDATE delta_installation SET measured_by = @client::uuid, measured_until = now() + @lease::interval
WHERE measured_by = @client::uuid OR measured_until IS NULL OR measured_until <= now();

-- name: EndMeasuring :exec
UPDATE delta_installation SET measured_by = NULL, measured_until = NULL WHERE measured_by = @client::uuid;

-- name: MeasureDue :many
-- What waits for dispatchers, by the index that they use. Counting ends at a bound, so that a long outbox costs no more to be measured.
--
-- A kind is measured if a client has started with it, or if it has rows in the dispatchers' index: what was informed of a kind that no client works waits too.
-- The index is looked at once for each kind. Its whole order is asked for, because another index by kind would be read over all rows that are not in this one.
--
-- It leaves out what dispatchers leave on purpose: what is paused or snoozed, by itself, its kind or its namespace, and what has a claim that is
-- alive. What a snoozed kind has kept waits since the end of the snooze. Rows of snoozed namespaces are put off by dispatchers, so few are read in vain.
WITH RECURSIVE indexed AS (
    (SELECT d.kind FROM delta_resource d WHERE d.dispatch_at IS NOT NULL AND NOT d.paused ORDER BY d.kind, d.priority, d.dispatch_at LIMIT 1)
    UNION ALL
    SELECT (SELECT d.kind FROM delta_resource d WHERE d.dispatch_at IS NOT NULL AND NOT d.paused AND d.kind > i.kind ORDER BY d.kind, d.priority, d.dispatch_at LIMIT 1)
    FROM indexed i WHERE i.kind IS NOT NULL
)
SELECT k.kind::text AS kind, least(sum(w.count), @most::bigint)::bigint AS count, coalesce(now() - min(w.oldest), '0')::interval AS oldest
FROM (SELECT n.name AS kind FROM delta_controller n UNION SELECT i.kind FROM indexed i WHERE i.kind IS NOT NULL) k
LEFT JOIN delta_controller c ON c.name = k.kind
CROSS JOIN unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, min(greatest(f.dispatch_at, c.snoozed_until + c.snooze_spread)) AS oldest FROM (
        SELECT d.dispatch_at FROM delta_resource d
        WHERE d.kind = k.kind AND d.priority = p.priority AND d.dispatch_at <= now() AND NOT d.paused
          AND NOT coalesce(c.paused, FALSE) AND coalesce(c.snoozed_until + c.snooze_spread <= now(), TRUE)
          AND d.namespace <> ALL ((SELECT delta_snoozed_namespaces())::text[])
          AND (d.claimed_until IS NULL OR (d.claimed_until <= now()
            AND NOT EXISTS (SELECT FROM delta_claim o WHERE o.id = d.claim AND o.claimed_until > now())))
        ORDER BY d.dispatch_at
        LIMIT @most::bigint
    ) f
) w
GROUP BY k.kind
ORDER BY k.kind;

-- name: MeasurePasses :many
-- How the listings stand of each kind with an informer that is to run by itself, or of which a pass has ended: how long ago one succeeded, in the shard
-- for which it is longest ago, what their lag is computed from, in how many shards the latest pass has failed, and what is withheld. A kind without
-- shards has one, '', also before its first pass; of a kind with shards that one is about naming them.
--
-- age is negative where no pass has succeeded. behind is how far a listing would be behind: before its first success, since it is to be listed. waited is
-- since when a run may be missing: neither before the latest success, nor before the informer was to run as it does. What is paused is neither
-- behind nor failing: it was stopped on purpose.
SELECT s.kind, s.inform_interval, s.inform_jitter, s.inform_schedule, s.full_listing_interval,
    coalesce(max(s.age) FILTER (WHERE s.is_listed), '-1 second')::interval AS age,
    coalesce(max(s.behind) FILTER (WHERE s.runs), '0')::interval AS behind,
    coalesce(max(s.behind) FILTER (WHERE s.runs AND s.error <> ''), '0')::interval AS behind_failing,
    coalesce(max(s.waited) FILTER (WHERE s.runs), '0')::interval AS waited,
    count(*) FILTER (WHERE s.runs AND s.error <> '') AS failing,
    (SELECT coalesce(sum(w.missing), 0) FROM delta_withheld w WHERE w.kind = s.kind AND w.decision IS NULL)::bigint AS withheld
FROM (
    SELECT c.name AS kind, c.inform_interval, c.inform_jitter, c.inform_schedule, c.full_listing_interval, o.failed_at, coalesce(o.error, '') AS error,
        CASE WHEN o.succeeded_at IS NOT NULL THEN greatest(now() - o.succeeded_at, '0') END AS age,
        greatest(now() - coalesce(o.succeeded_at, greatest(c.informs_since, n.named_at)), '0') AS behind,
        greatest(now() - greatest(o.succeeded_at, c.informs_since, n.named_at), '0') AS waited,
        NOT (c.inform_paused OR coalesce(o.paused, FALSE)) AS runs,
        coalesce(o.shard, '') <> '' OR NOT bool_or(coalesce(o.shard, '') <> '') OVER (PARTITION BY c.name) AS is_listed
    FROM delta_controller c
    LEFT JOIN delta_shard o ON o.kind = c.name AND o.gone_at IS NULL
    CROSS JOIN LATERAL (SELECT CASE WHEN o.shard <> '' THEN o.named_at END AS named_at) n
    WHERE NOT c.lists_nothing
) s
GROUP BY s.kind, s.inform_interval, s.inform_jitter, s.inform_schedule, s.full_listing_interval
HAVING count(s.age) + count(s.failed_at) > 0 OR s.inform_schedule IS NOT NULL OR greatest(s.inform_interval, s.full_listing_interval) > '0'
ORDER BY s.kind;

-- name: CountStates :many
-- All resources. It reads the whole table. Of the pairs of a kind and a namespace those with the most resources are counted by themselves, so that the
-- answer has a bound; the others are counted together, with an empty namespace, which no resource has.
WITH counted AS (
    SELECT r.kind, r.namespace, r.state, count(*) AS count FROM delta_resource r GROUP BY r.kind, r.namespace, r.state
), ranked AS (
    SELECT c.kind, c.namespace, row_number() OVER (ORDER BY sum(c.count) DESC, c.kind, c.namespace) AS rank FROM counted c GROUP BY c.kind, c.namespace
)
SELECT c.kind, (CASE WHEN k.rank <= @most::bigint THEN c.namespace ELSE '' END)::text AS namespace, c.state, sum(c.count)::bigint AS count
FROM counted c
JOIN ranked k ON k.kind = c.kind AND k.namespace = c.namespace
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;
