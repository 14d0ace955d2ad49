-- What one client at a time measures for all, for telemetry.

-- name: LeaseMeasuring :execrows
-- The client that measures goes on to do so, and another takes over when the lease has passed. No row means that another client does.
UPDATE delta_installation SET measured_by = @client::uuid, measured_until = now() + @lease::interval
WHERE measured_by = @client::uuid OR measured_until IS NULL OR measured_until <= now();

-- name: EndMeasuring :exec
UPDATE delta_installation SET measured_by = NULL, measured_until = NULL WHERE measured_by = @client::uuid;

-- name: MeasureDue :many
-- What waits for dispatchers, by the index that they use. Counting ends at a bound, so that a long outbox costs no more to be measured.
SELECT c.name AS kind, least(sum(w.count), @most::bigint)::bigint AS count, coalesce(now() - min(w.oldest), '0')::interval AS oldest
FROM delta_controller c
CROSS JOIN unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, min(f.dispatch_at) AS oldest FROM (
        SELECT d.dispatch_at FROM delta_resource d
        WHERE d.kind = c.name AND d.priority = p.priority AND d.dispatch_at <= now() AND NOT d.paused
        ORDER BY d.dispatch_at
        LIMIT @most::bigint
    ) f
) w
GROUP BY c.name
ORDER BY c.name;

-- name: MeasurePasses :many
-- How long ago the informer of each kind succeeded, of a kind with shards in the shard for which it is longest ago, and what is withheld of it.
SELECT c.name AS kind, (now() - min(s.succeeded_at))::interval AS age,
    (SELECT coalesce(sum(w.missing), 0) FROM delta_withheld w WHERE w.kind = c.name AND w.decision IS NULL)::bigint AS withheld
FROM delta_controller c
JOIN delta_shard s ON s.kind = c.name
WHERE NOT c.lists_nothing AND s.succeeded_at IS NOT NULL AND s.gone_at IS NULL
  AND (s.shard <> '' OR NOT EXISTS (SELECT FROM delta_shard o WHERE o.kind = c.name AND o.shard <> '' AND o.gone_at IS NULL))
GROUP BY c.name
ORDER BY c.name;

-- name: CountStates :many
-- All resources. It reads the whole table.
SELECT r.kind, r.namespace, r.state, count(*) AS count FROM delta_resource r GROUP BY r.kind, r.namespace, r.state ORDER BY r.kind, r.namespace, r.state;

-- name: MeasureFailing :many
-- Of how many shards the latest pass has failed, of each kind with an informer of which a pass has ended. A kind without shards has one.
SELECT c.name AS kind, count(*) FILTER (WHERE s.error <> '') AS failing
FROM delta_controller c
JOIN delta_shard s ON s.kind = c.name
WHERE NOT c.lists_nothing AND s.gone_at IS NULL AND (s.succeeded_at IS NOT NULL OR s.failed_at IS NOT NULL)
GROUP BY c.name
ORDER BY c.name;
