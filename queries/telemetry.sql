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
-- It leaves out what dispatchers leave on purpose: what is paused or snoozed, by itself, its kind or its namespace, and what has a claim that is
-- alive. What a snoozed kind has kept waits since the end of the snooze. Rows of snoozed namespaces are put off by dispatchers, so few are read in vain.
SELECT c.name AS kind, least(sum(w.count), @most::bigint)::bigint AS count, coalesce(now() - min(w.oldest), '0')::interval AS oldest
FROM delta_controller c
CROSS JOIN unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, min(greatest(f.dispatch_at, c.snoozed_until + c.snooze_spread)) AS oldest FROM (
        SELECT d.dispatch_at FROM delta_resource d
        WHERE d.kind = c.name AND d.priority = p.priority AND d.dispatch_at <= now() AND NOT d.paused
          AND NOT c.paused AND coalesce(c.snoozed_until + c.snooze_spread <= now(), TRUE)
          AND d.namespace <> ALL ((SELECT delta_snoozed_namespaces())::text[])
          AND (d.claimed_until IS NULL OR (d.claimed_until <= now()
            AND NOT EXISTS (SELECT FROM delta_claim o WHERE o.id = d.claim AND o.claimed_until > now())))
        ORDER BY d.dispatch_at
        LIMIT @most::bigint
    ) f
) w
GROUP BY c.name
ORDER BY c.name;

-- name: MeasurePasses :many
-- How the listings stand of each kind with an informer of which a pass has ended: how long ago one succeeded, in the shard for which it is longest
-- ago, what their lag is computed from, in how many shards the latest pass has failed, and what is withheld. A kind without shards has one, ''; of
-- a kind with shards that one is about naming them.
--
-- Ages are negative where no pass has succeeded. What is paused is neither behind nor failing: it was stopped on purpose.
SELECT c.name AS kind, c.inform_interval,
    coalesce(max(s.age) FILTER (WHERE s.is_listed), '-1 second')::interval AS age,
    coalesce(max(s.age) FILTER (WHERE s.runs), '-1 second')::interval AS oldest,
    coalesce(max(s.age) FILTER (WHERE s.runs AND s.error <> ''), '-1 second')::interval AS oldest_failing,
    count(*) FILTER (WHERE s.runs AND s.error <> '') AS failing,
    (SELECT coalesce(sum(w.missing), 0) FROM delta_withheld w WHERE w.kind = c.name AND w.decision IS NULL)::bigint AS withheld
FROM delta_controller c
CROSS JOIN LATERAL (
    SELECT CASE WHEN o.succeeded_at IS NOT NULL THEN greatest(now() - o.succeeded_at, '0') END AS age, o.failed_at, o.error,
        NOT (c.inform_paused OR o.paused) AS runs,
        o.shard <> '' OR NOT bool_or(o.shard <> '') OVER () AS is_listed
    FROM delta_shard o
    WHERE o.kind = c.name AND o.gone_at IS NULL
) s
WHERE NOT c.lists_nothing
GROUP BY c.name
HAVING count(s.age) + count(s.failed_at) > 0
ORDER BY c.name;

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
