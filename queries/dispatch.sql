-- The outbox. A row is due when dispatch_at has passed. A dispatcher leases rows and wakes their workflows: if it dies in
-- between, or the wake-up is lost, the lease passes and another one does it again.

-- name: LeaseDue :many
-- The most urgent first, and the oldest of those. Each priority is a range of the index, in the given order. Rows of a
-- paused or snoozed kind, of a snoozed namespace, and with a living claim are left alone.
--
-- A row with a workflow that has a timer is looked at only some time (grace) after that timer. Any other row is looked
-- at again after the lease, or after twice the time for which it is overdue, so that a long queue in Temporal is not
-- filled with wake-ups.
--
-- Of a limited namespace, no more rows that want a slot of a worker are leased than it has room for: more would only wait. Members
-- of a batch wait within it. Namespaces with many due rows are passed by, and each is looked at by itself: from when its first row became due, for as many rows as it has room
-- for. An entry is such a namespace with a priority, or the priority of all others (no namespace).
--
-- A client with a controller that cannot finalize leaves rows that have to be finalized to others.
--
-- With a batch, rows are leased to it, and a settled row of a batch stays in one. A row is for a single workflow if it
-- waits for a retry by itself, or does not fit a batch.
UPDATE delta_resource r
SET dispatch_at = CASE
        WHEN r.due_at > now() THEN r.due_at + @grace::interval
        WHEN r.due_at IS NOT NULL OR delta_is_worked(r.state, r.finalized, r.due_at)
            THEN now() + least(greatest(@lease::interval, 2 * (now() - coalesce(r.due_at, r.claimed_until, now()))), @longest::interval)
        END,
    hashed_id = CASE WHEN @hash_ids::boolean THEN delta_hash_id(r.kind, r.object_id) END,
    workflow_id = CASE
        WHEN @batch_id::text <> ''
            AND (coalesce(r.due_at <= now(), delta_is_worked(r.state, r.finalized, r.due_at))
                OR (r.state IN ('synced', 'degraded', 'deleted') AND starts_with(r.workflow_id, @batch_prefix::text)))
            AND delta_fits_batch(r.state, r.finalized, r.due_at, r.attempt, r.max_attempts, pg_column_size(r.object), @largest::integer, @most_lost::integer)
            THEN @batch_id::text
        WHEN starts_with(r.workflow_id, @batch_prefix::text) THEN NULL
        ELSE r.workflow_id END
WHERE r.id = ANY (ARRAY(
    SELECT taken.id FROM (
        SELECT found.id, found.namespace, found.wants_slot,
            row_number() OVER (PARTITION BY found.namespace, found.wants_slot ORDER BY found.entry, found.dispatch_at, found.id) AS n
        FROM (
            SELECT l.id, l.namespace, l.wants_slot, e.entry, l.dispatch_at
            FROM (
                SELECT unnest(@priorities::smallint[]) AS priority, unnest(@namespaces::text[]) AS namespace, unnest(@since::timestamptz[]) AS since,
                    unnest(@most::integer[]) AS most, generate_subscripts(@priorities::smallint[], 1) AS entry
            ) e
            CROSS JOIN LATERAL (
                SELECT d.id, d.namespace, d.dispatch_at, delta_wants_slot(d.state, d.finalized, d.due_at) AND (@batch_id::text = '' OR NOT delta_fits_batch(
                    d.state, d.finalized, d.due_at, d.attempt, d.max_attempts, pg_column_size(d.object), @largest::integer, @most_lost::integer
                )) AS wants_slot
                FROM delta_resource d
                WHERE d.kind = @kind AND d.priority = e.priority AND d.dispatch_at <= now() AND d.dispatch_at >= coalesce(e.since, '-infinity') AND NOT d.paused
                  AND CASE WHEN e.namespace <> '' THEN d.namespace = e.namespace ELSE d.namespace <> ALL (@passed_by::text[]) END
                  AND (@finalizes::boolean OR d.state <> 'deleted' OR d.finalized IS NOT FALSE)
                  AND delta_wakes_at((SELECT c.snoozed_until FROM delta_controller c WHERE c.name = @kind),
                    (SELECT c.snooze_spread FROM delta_controller c WHERE c.name = @kind), d.id) <= now()
                  AND (d.namespace <> ALL ((SELECT delta_snoozed_namespaces())::text[])
                    OR (SELECT delta_wakes_at(n.snoozed_until, n.snooze_spread, d.id) FROM delta_namespace n WHERE n.name = d.namespace) <= now())
                  AND (d.claimed_until IS NULL OR (d.claimed_until <= now()
                    AND NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > now())))
                ORDER BY d.dispatch_at
                LIMIT coalesce(e.most, @batch::integer)
                FOR NO KEY UPDATE SKIP LOCKED
            ) l
            WHERE NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND (c.paused OR c.snoozed_until > now()))
            LIMIT @batch::integer
        ) found
    ) taken
    WHERE NOT taken.wants_slot OR taken.n <= coalesce((@rooms::integer[])[array_position(@limited_namespaces::text[], taken.namespace)], taken.n)
))
RETURNING r.id, r.object_id, r.hashed_id, r.namespace, r.priority, r.state, r.generation, r.due_at, r.dispatch_at,
    coalesce(r.workflow_id = @batch_id::text, FALSE)::boolean AS batched, (r.workflow_id IS NULL)::boolean AS unnamed,
    delta_is_worked(r.state, r.finalized, r.due_at)::boolean AS worked,
    delta_wants_slot(r.state, r.finalized, r.due_at)::boolean AS wants_slot, now()::timestamptz AS now;

-- name: PutOffSnoozed :one
-- Moves the first due rows of snoozed namespaces to the end of the snooze, each to its time, because each lease would
-- step over them. Returns how many. Where no namespace is snoozed, no row is read. The namespaces are locked until that
-- is written, so that a statement that ends a snooze finds all rows that were put off. A locked namespace is being
-- changed.
WITH asleep AS MATERIALIZED (
    SELECT n.name, n.snoozed_until, n.snooze_spread FROM delta_namespace n WHERE n.name = ANY (delta_snoozed_namespaces())
    FOR SHARE SKIP LOCKED
),
due AS MATERIALIZED (
    SELECT found.id, (SELECT delta_wakes_at(a.snoozed_until, a.snooze_spread, found.id) FROM asleep a WHERE a.name = found.namespace) AS wakes_at
    FROM unnest(@priorities::smallint[]) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT d.id, d.namespace FROM delta_resource d
        WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at <= now() AND NOT d.paused
        ORDER BY d.dispatch_at
        LIMIT @batch::integer
    ) found
    WHERE EXISTS (SELECT FROM asleep)
    LIMIT @batch::integer
),
written AS (
    UPDATE delta_resource r SET dispatch_at = (SELECT delta_wakes_at(a.snoozed_until, a.snooze_spread, r.id) FROM asleep a WHERE a.name = r.namespace)
    WHERE r.id = ANY (ARRAY(
        SELECT l.id FROM due u
        CROSS JOIN LATERAL (
            SELECT d.id FROM delta_resource d
            WHERE d.id = u.id AND d.dispatch_at <= now() AND d.namespace IN (SELECT a.name FROM asleep a) LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        ) l
        WHERE u.wakes_at > now()
    ))
    RETURNING r.id
)
SELECT count(*) FROM written;

-- name: NextDispatch :one
-- How long it is until a dispatcher of a kind has to look again; an hour where nothing waits. Rows that became due
-- since it last looked, as while it started workflows, are due at once. Rows that it has seen and left are not counted,
-- unless a snooze of the kind or of a namespace ends: then it looks several times while the rows come back. keys_wait
-- is the time until a limit key has to be looked at, which is not done while the kind is paused or snoozed, and
-- parents_wait reports whether rows wait for parents. left_behind reports whether a namespace with room has a due row
-- that another dispatcher had locked, to lease others.
SELECT (cardinality(@namespaces::text[]) > 0 AND EXISTS (
    SELECT FROM unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT FROM delta_resource d
        WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at <= now() AND d.dispatch_at >= @since::timestamptz AND NOT d.paused
          AND d.namespace = ANY (@namespaces::text[]) AND d.claimed_until IS NULL
        ORDER BY d.dispatch_at LIMIT 1
    ) l
))::boolean AS left_behind, EXISTS (
    SELECT FROM delta_resource d
    WHERE d.kind = @kind AND d.awaited_parents IS NOT NULL AND d.dispatch_at IS NULL AND d.queued_at IS NULL AND NOT d.is_deleted
) AS parents_wait, coalesce((
    SELECT greatest(k.wake_at, (SELECT CASE WHEN c.paused THEN now() + interval '1 hour' ELSE c.snoozed_until END FROM delta_controller c WHERE c.name = @kind))
    FROM delta_key k WHERE k.kind = @kind AND k.wake_at IS NOT NULL
    ORDER BY k.wake_at LIMIT 1
) - now(), '1 hour')::interval AS keys_wait, least(coalesce(min(n.dispatch_at) - now(), '1 hour'), (
    SELECT min(CASE WHEN s.until > now() THEN s.until - now() ELSE s.spread / 16 END) FROM (
        SELECT c.snoozed_until AS until, c.snooze_spread AS spread FROM delta_controller c WHERE c.name = @kind
        UNION ALL SELECT m.snoozed_until, m.snooze_spread FROM delta_namespace m WHERE m.snoozed_until > now() - interval '1 minute'
    ) s WHERE s.until + s.spread > now()
))::interval AS wait
FROM unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
CROSS JOIN LATERAL (
    SELECT d.dispatch_at FROM delta_resource d
    WHERE d.kind = @kind AND d.priority = p.priority AND d.dispatch_at > now() - @looked::interval AND NOT d.paused
    ORDER BY d.dispatch_at LIMIT 1
) n;

-- name: FirstDue :many
-- How many rows of limited namespaces are due, and since when, by priority; the same of all others (no namespace), which
-- have one more row, since a margin ago.
SELECT (CASE WHEN d.namespace = ANY (@limited_namespaces::text[]) THEN d.namespace ELSE '' END)::text AS namespace, d.priority,
    min(d.dispatch_at)::timestamptz AS since, count(*) AS due
FROM delta_resource d
WHERE d.kind = @kind AND d.priority BETWEEN 1 AND 5 AND d.dispatch_at <= now() AND NOT d.paused
GROUP BY 1, 2
UNION ALL
SELECT '', 1, now() - @margin::interval, 1;

-- name: ReleaseLeases :exec
-- Makes leased rows due again, each after its time, because their workflows were not woken. The reason is on the row,
-- the same one only once. Locked rows are left to their lease: waiting while holding other locks could deadlock with an
-- inform.
WITH o AS MATERIALIZED (
    SELECT i.id, i.after, i.error
    FROM (
        SELECT unnest(@ids::bigint[]) AS id, unnest(@leased_until::timestamptz[]) AS leased_until, unnest(@afters::interval[]) AS after,
            nullif(unnest(@errors::text[]), '')::jsonb AS error
    ) i
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d WHERE d.id = i.id AND d.dispatch_at = i.leased_until LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) l
)
UPDATE delta_resource r
SET dispatch_at = now() + o.after,
    errors = CASE
        WHEN o.error IS NULL THEN r.errors
        WHEN r.errors[cardinality(r.errors)] ->> 'attempt' = '0' AND r.errors[cardinality(r.errors)] ->> 'error' = o.error ->> 'error'
            THEN r.errors[:cardinality(r.errors) - 1] || o.error
        ELSE delta_append_error(r.errors, o.error, @max_errors) END
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[]);

-- name: NameWorkflows :exec
-- Notes the single workflows of rows that were leased to them and wait: a claim, which would note it, comes later or
-- never.
WITH o AS MATERIALIZED (
    SELECT i.id, i.workflow_id
    FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@workflow_ids::text[]) AS workflow_id) i
    CROSS JOIN LATERAL (
        SELECT d.id FROM delta_resource d WHERE d.id = i.id AND d.workflow_id IS NULL LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) l
)
UPDATE delta_resource r SET workflow_id = o.workflow_id
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[]);

-- name: DispatchSoon :exec
-- Makes a row due soon, because its workflow turned out to belong to another installation.
UPDATE delta_resource SET dispatch_at = now() + @after::interval
WHERE kind = @kind AND object_id = @object_id AND (state = 'pending' OR delta_awaits_attempt(state, finalized));

-- name: DispatchAgain :one
-- Gives a row back to dispatchers, because its attempt is due and cannot begin yet. One that has a living claim, waits for
-- a slot of its limit key, or is due anyway, is left alone. is_locked reports whether another transaction has the row, and
-- is_claimed whether it has a claim.
WITH o AS MATERIALIZED (
    SELECT d.id, d.dispatch_at > now() AND delta_wants_slot(d.state, d.finalized, d.due_at) AS wants,
        d.claimed_until > now() OR EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > now()) AS is_claimed
    FROM delta_resource d WHERE d.id = @id
    FOR NO KEY UPDATE SKIP LOCKED
),
given AS (
    UPDATE delta_resource r SET dispatch_at = now() FROM o WHERE r.id = o.id AND o.wants AND o.is_claimed IS NOT TRUE
)
SELECT (NOT EXISTS (SELECT FROM o))::boolean AS is_locked, EXISTS (SELECT FROM o WHERE o.is_claimed)::boolean AS is_claimed;

-- name: Notify :exec
-- The channel is the installation's: schemas of one database do not wake each other.
SELECT pg_notify(delta_channel(), kind) FROM unnest(@kinds::text[]) AS kind;

-- name: ForgetDispatched :many
-- Makes a page of rows due because Temporal has lost their workflows, each once: rows of earlier pages are being
-- dispatched meanwhile, and look as if they were lost. A living claim looks after its row itself.
UPDATE delta_resource SET dispatch_at = now()
WHERE id = ANY (ARRAY(
    SELECT d.id FROM delta_resource d
    WHERE d.id > @after_id AND d.dispatch_at > now()
    ORDER BY d.id
    LIMIT @batch::integer
    FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id, kind;
