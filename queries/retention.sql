-- The end of a resource's retention.

-- name: EndRetention :one
-- Of the rows that are synced, degraded or deleted and due: a row that expires gets a new generation of the same
-- object; a degraded row that may heal gets one more attempt of the same generation; a row that was deleted before its
-- kind had a Finalizer is finalized; a row with its retention over is removed; and a row that newer settings keep for
-- longer is due later, or never. A batch ends only rows that are still its own. A row with a running call of Work is
-- left alone, and so is a paused one: if it were removed, an informer could bring it back, and it would be worked
-- although no one had resumed it. A row that was deleted explicitly and awaits a complete listing is never due: the
-- listing wakes it (WakeUnlisted).
WITH ended AS MATERIALIZED (
    SELECT l.*, l.state = 'synced' AND coalesce(n.resource_expiry, @default_expiry::interval) > '0' AS expires,
        delta_heals(l.state, l.cause) AND @degraded_retry::interval > '0' AS heals,
        l.state = 'deleted' AND l.finalized IS NULL AND delta_unfinalized(l.kind) IS FALSE AS finalizes,
        CASE WHEN l.state <> 'deleted' OR l.since + t.retention > now() OR NOT delta_awaits_listing(l.kind, l.shard, l.cause, l.since, t.retention)
            THEN l.since + t.retention END AS kept_until
    FROM (SELECT unnest(@ids::bigint[]) AS id) m
    CROSS JOIN LATERAL (
        SELECT d.id, d.kind, d.shard, d.state, d.cause, d.finalized, d.namespace,
            delta_kept_since(d.state, d.attempted_at, d.synced_at, d.listed_at) AS since
        FROM delta_resource d
        WHERE d.id = m.id AND (@whole_kind::boolean OR d.workflow_id = @workflow_id::text)
          AND d.state IN ('synced', 'degraded', 'deleted') AND d.due_at <= now() AND NOT d.paused
          AND NOT delta_awaits_attempt(d.state, d.finalized)
          AND (d.claimed_until IS NULL OR (d.claimed_until <= now()
            AND NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > now())))
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) l
    LEFT JOIN delta_namespace n ON n.name = l.namespace
    CROSS JOIN LATERAL (
        SELECT delta_retention(l.state, n, @default_synced_retention::interval, @default_degraded_retention::interval,
            @default_deleted_retention::interval) AS retention
    ) t
),
expired AS (
    UPDATE delta_resource r
    SET state = 'expired', generation = r.generation + 1, generation_at = now(), carrier = NULL, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now() + @dispatch_after::interval
    WHERE r.id = ANY (ARRAY(SELECT e.id FROM ended e WHERE e.expires))
    RETURNING r.id
),
retried AS (
    UPDATE delta_resource r
    SET state = 'failed', attempt = r.max_attempts - 1, due_at = now(), dispatch_at = now() + @dispatch_after::interval
    WHERE r.id = ANY (ARRAY(SELECT e.id FROM ended e WHERE e.heals))
    RETURNING r.id
),
finalizing AS (
    UPDATE delta_resource r SET finalized = FALSE, attempt = 0, snoozes = 0, due_at = now(), dispatch_at = now() + @dispatch_after::interval
    WHERE r.id = ANY (ARRAY(SELECT e.id FROM ended e WHERE e.finalizes))
    RETURNING r.id
),
removed AS (
    DELETE FROM delta_resource r WHERE r.id = ANY (ARRAY(SELECT e.id FROM ended e WHERE NOT e.expires AND NOT e.heals AND NOT e.finalizes AND e.kept_until <= now()))
    RETURNING r.id, r.state, r.object_id, r.hashed_id, r.namespace, r.generation, r.attempt, r.errors
),
prolonged AS (
    UPDATE delta_resource r SET due_at = e.kept_until, dispatch_at = e.kept_until + @grace::interval
    FROM ended e WHERE r.id = e.id AND r.id = ANY (@ids::bigint[]) AND NOT e.expires AND NOT e.heals AND NOT e.finalizes AND coalesce(e.kept_until > now(), TRUE)
    RETURNING r.id
)
SELECT (SELECT count(*) FROM expired) AS expired, ((SELECT count(*) FROM retried) + (SELECT count(*) FROM finalizing))::bigint AS retried, (SELECT count(*) FROM removed) AS removed,
    (SELECT count(*) FROM prolonged) AS prolonged,
    -- For the log: rows that were removed without having been synced again.
    ARRAY(SELECT CASE WHEN @hash_ids::boolean THEN coalesce(r.hashed_id, '') ELSE r.object_id END
        FROM removed r WHERE r.state = 'degraded' ORDER BY r.id)::text[] AS given_up,
    ARRAY(SELECT r.namespace FROM removed r WHERE r.state = 'degraded' ORDER BY r.id)::text[] AS namespaces,
    ARRAY(SELECT r.generation FROM removed r WHERE r.state = 'degraded' ORDER BY r.id)::bigint[] AS generations,
    ARRAY(SELECT r.attempt FROM removed r WHERE r.state = 'degraded' ORDER BY r.id)::integer[] AS attempts,
    ARRAY(SELECT coalesce(r.errors[cardinality(r.errors)] ->> 'error', '') FROM removed r WHERE r.state = 'degraded' ORDER BY r.id)::text[] AS last_errors;

-- name: WakeUnlisted :one
-- A page of rows that have waited for a complete listing: of a kind, or of its rows of one shard, or of none (an empty
-- one). The page begins after a row, in the order of delta_resource_unlisted_idx. Rows that no longer have to wait are
-- woken: a dispatcher removes them. Rows that are still listed stay, and are read once a listing. The beginning of the
-- latest complete listing is read once for each shard of the page, because for a row without a shard that looks at all
-- of them. Locked rows are left to the next listing.
WITH page AS MATERIALIZED (
    SELECT d.id, coalesce(d.shard, '') AS shard FROM delta_resource d
    WHERE d.kind = @kind AND d.dispatch_at IS NULL AND d.cause IN ('work', 'command')
      AND (coalesce(d.shard, ''), d.id) > (@after_shard::text, @after_id::bigint)
      AND (sqlc.narg(shard)::text IS NULL OR coalesce(d.shard, '') = sqlc.narg(shard)::text)
    ORDER BY coalesce(d.shard, ''), d.id
    LIMIT @page::integer
),
listed AS MATERIALIZED (
    SELECT s.shard, CASE WHEN EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND c.lists_all)
        THEN delta_listed_all_at(@kind, nullif(s.shard, '')) ELSE 'infinity' END AS at
    FROM (SELECT DISTINCT p.shard FROM page p) s
),
woken AS (
    UPDATE delta_resource r SET due_at = now(), dispatch_at = now()
    WHERE r.id = ANY (ARRAY(
        SELECT l.id FROM page p JOIN listed a ON a.shard = p.shard
        CROSS JOIN LATERAL (
            SELECT d.id FROM delta_resource d
            LEFT JOIN delta_namespace n ON n.name = d.namespace
            CROSS JOIN LATERAL (
                SELECT delta_kept_since(d.state, d.attempted_at, d.synced_at, d.listed_at) AS since,
                    delta_retention(d.state, n, NULL, NULL, @default_deleted_retention::interval) AS retention
            ) t
            WHERE d.id = p.id AND d.dispatch_at IS NULL AND d.cause IN ('work', 'command')
              AND d.state = 'deleted' AND d.due_at IS NULL AND d.finalized IS NOT FALSE AND NOT d.paused
              AND t.since + t.retention <= now() AND delta_is_left_out(a.at, t.since, t.retention)
            LIMIT 1
            FOR NO KEY UPDATE OF d SKIP LOCKED
        ) l
    ))
    RETURNING r.id
)
SELECT (SELECT count(*) FROM woken) AS woken, count(*) AS looked,
    coalesce(max(p.shard), '')::text AS last_shard, coalesce((SELECT p.id FROM page p ORDER BY p.shard DESC, p.id DESC LIMIT 1), 0)::bigint AS last_id
FROM page p;

-- name: ShardsAwaitingListing :many
-- The shards of rows that wait for a complete listing of a kind, each looked up by itself; an empty one for rows
-- without.
WITH RECURSIVE said AS (
    (SELECT coalesce(d.shard, '') AS shard FROM delta_resource d WHERE d.kind = @kind AND d.dispatch_at IS NULL AND d.cause IN ('work', 'command')
     ORDER BY coalesce(d.shard, '') LIMIT 1)
    UNION ALL
    SELECT (SELECT coalesce(d.shard, '') FROM delta_resource d WHERE d.kind = @kind AND d.dispatch_at IS NULL AND d.cause IN ('work', 'command')
        AND coalesce(d.shard, '') > s.shard ORDER BY coalesce(d.shard, '') LIMIT 1)
    FROM said s WHERE s.shard IS NOT NULL
)
SELECT s.shard::text AS shard FROM said s WHERE s.shard IS NOT NULL;

-- name: SettledMembers :many
-- When the settled members of a batch are due. A paused one is not: a dispatcher gives it to another batch when it is
-- resumed.
SELECT r.due_at, now()::timestamptz AS now
FROM (SELECT unnest(@ids::bigint[]) AS id) m
CROSS JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.id = m.id LIMIT 1) r
WHERE r.workflow_id = @workflow_id::text AND r.state IN ('synced', 'degraded', 'deleted') AND r.due_at IS NOT NULL AND NOT r.paused
  AND NOT delta_awaits_attempt(r.state, r.finalized);

-- name: RescheduleSettled :many
-- Moves the due times of settled rows to those of the namespace's current settings, counted from when their retention
-- began, and makes a dispatcher wake their workflows. Rows that differ by no more than the spread of expiries are left
-- alone. A locked row is being written, or takes the settings when its timer fires. Members of a batch stay due
-- together.
--
-- A kind that no client has started with has no settings, so it gets the defaults of WithDefaults (delta/config.go).
--
-- The rows are looked up one by one, as in other statements: in a join, a table that Postgres believes empty is read as
-- a whole for each of them.
WITH l AS MATERIALIZED (
    SELECT d.* FROM (SELECT unnest(@ids::bigint[]) AS id) m
    CROSS JOIN LATERAL (
        SELECT d.id, d.kind, d.namespace, d.state, d.cause, d.workflow_id, d.due_at, d.attempted_at, d.listed_at, d.synced_at FROM delta_resource d
        WHERE d.id = m.id AND d.namespace = @namespace AND d.state IN ('synced', 'degraded', 'deleted') AND d.claimed_until IS NULL
          AND NOT delta_awaits_attempt(d.state, d.finalized) AND NOT delta_is_worked(d.state, d.finalized, d.due_at)
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) d
), o AS MATERIALIZED (
    SELECT p.id, p.since + p.period AS at, p.period, p.due_at FROM (
        SELECT l.id, l.due_at,
            CASE WHEN l.state = 'degraded' AND delta_heals(l.state, l.cause) AND c.degraded_retry > '0' THEN l.attempted_at
                ELSE delta_kept_since(l.state, l.attempted_at, l.synced_at, l.listed_at) END AS since,
            delta_next_step(l.state, l.cause, n, '0', coalesce(c.degraded_retry, '1 hour'),
                sqlc.arg(earliest)::double precision * abs(hashtextextended(coalesce(l.workflow_id, l.id::text), 0) % 1024) / 1024,
                coalesce(c.synced_retention, '1 day'), coalesce(c.degraded_retention, '1 day'), coalesce(c.deleted_retention, '1 day')) AS period
        FROM l
        LEFT JOIN delta_namespace n ON n.name = l.namespace
        LEFT JOIN delta_controller c ON c.name = l.kind
    ) p
)
UPDATE delta_resource r SET due_at = o.at, dispatch_at = now()
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[])
  AND ((o.at IS NULL) <> (o.due_at IS NULL) OR abs(extract(epoch FROM o.at - o.due_at)) > 0.1 * extract(epoch FROM o.period))
RETURNING r.kind;
