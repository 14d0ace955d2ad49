-- Why a resource is not synced now. These only read.

-- name: ExplainResource :one
-- All that the database says of it: how its row, kind, namespace, shard and limit key stand, and what listings say of its object.
SELECT sqlc.embed(r), now()::timestamptz AS now,
    delta_is_worked(r.state, r.finalized, r.due_at)::boolean AS worked, delta_awaits_attempt(r.state, r.finalized)::boolean AS awaits_attempt,
    delta_heals(r.state, r.cause)::boolean AS heals,
    o.claimed_until AS renewed_until,
    (c.name IS NOT NULL)::boolean AS kind_known, coalesce(c.paused, FALSE)::boolean AS kind_paused, c.task_queue, c.degraded_retry,
    (greatest(delta_wakes_at(c.snoozed_until, c.snooze_spread, r.id), now()) - now())::interval AS kind_snoozed_for,
    (greatest(delta_wakes_at(n.snoozed_until, n.snooze_spread, r.id), now()) - now())::interval AS namespace_snoozed_for,
    c.next_call_at AS kind_next_call_at, n.next_call_at AS namespace_next_call_at, n.rate_limit AS namespace_rate, n.max_workers AS namespace_workers,
    k.next_call_at AS key_next_call_at,
    s.passes AS stale_passes, s.since AS stale_since,
    f.rule AS refused_rule, f.refused_at AS refused_since, (f.kind IS NOT NULL AND f.object IS NULL)::boolean AS refused_unkept,
    h.gone_at AS shard_gone_at,
    w.missing AS withheld_missing, w.total AS withheld_total, w.reason AS withheld_reason, w.since AS withheld_since
FROM delta_resource r
LEFT JOIN delta_controller c ON c.name = r.kind
LEFT JOIN delta_namespace n ON n.name = r.namespace
LEFT JOIN delta_claim o ON o.id = r.claim
LEFT JOIN delta_key k ON k.kind = r.kind AND k.limit_key = r.limit_key
LEFT JOIN delta_stale s ON s.kind = r.kind AND s.object_id = r.object_id AND s.passes >= @several::integer
LEFT JOIN delta_refused f ON f.kind = r.kind AND f.object_id = r.object_id
LEFT JOIN delta_shard h ON h.kind = r.kind AND h.shard = r.shard
LEFT JOIN delta_withheld w ON w.kind = r.kind AND w.shard = coalesce(r.shard, '') AND w.decision IS NULL
WHERE r.kind = @kind AND r.object_id = @object_id
ORDER BY f.last_refused_at DESC NULLS LAST
LIMIT 1;

-- name: CountClaimed :one
-- How many resources of a kind have a claim that is alive, and how many in a namespace, of all kinds: of those that were leased last, 2000 of each
-- kind and priority. They are read off the index of the dispatcher.
SELECT count(*) FILTER (WHERE d.kind = @kind::text) AS of_kind, count(*) FILTER (WHERE d.namespace = @namespace::text) AS of_namespace
FROM delta_controller c
CROSS JOIN unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
CROSS JOIN LATERAL (
    SELECT r.kind, r.namespace, r.claim, r.claimed_until FROM delta_resource r
    WHERE r.kind = c.name AND r.priority = p.priority AND r.dispatch_at <= now() + @longest::interval AND NOT r.paused
    ORDER BY r.dispatch_at DESC
    LIMIT 2000
) d
WHERE d.claimed_until > now() OR EXISTS (SELECT FROM delta_claim o WHERE o.id = d.claim AND o.claimed_until > now());
