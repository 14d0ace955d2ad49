-- The right to call Work, for one row or many; see docs/design.md. Rows are named by their ids. Each statement probes the table
-- once for each: LIMIT 1 keeps the planner, which may believe of a table that is filling up that it has next to no rows, from comparing
-- each row with each. Updated rows are bound to the ids, too, and joined sets are materialized: if the planner is that wrong,
-- members are compared with members, and not with the table.

-- name: ClaimResources :many
-- scheduled, expired, failed (all of them due), or pending with a dead claim -> pending. A deleted row that has to be
-- finalized stays deleted, and is worked while its due_at is null; a worker with a controller that cannot finalize
-- leaves it.
--
-- A claim that is repeated, because its answer was lost, gives the same attempt. A claim that began an attempt has
-- claimed_until, which a repetition keeps, claim_for after attempted_at; that distinguishes it from a claim that found
-- the attempts exhausted. The attempt of a dead claim is kept as an error and counts. exhausted is a row for which it
-- was the last, or the last that it may lose together with others: it is claimed only so that the outcome can be
-- written. lost_attempt is the lost attempt where another one begins; 0 where none was lost. Locked rows are skipped:
-- waiting while holding other locks could deadlock with an inform.
--
-- A row of a snoozed kind or namespace is not claimed, except by a repetition.
--
-- Where the kind limits keys, a row is claimed that has a slot of its key, or has no key. See TakeSlots.
--
-- Where the kind has parents, a row is claimed that awaits none, or only parents that were synced meanwhile. From then
-- on it awaits none.
--
-- A batch claims only rows that are still its own. dispatch_at stays as it is, so that Postgres need not touch an
-- index.
WITH o AS MATERIALIZED (
    SELECT l.id, l.due_at, l.attempt, l.repeated, NOT l.repeated AND l.pending AS lost,
        CASE WHEN l.repeated THEN coalesce(l.attempted_at < l.claimed_until - @claim_for::interval, TRUE)
            ELSE l.pending AND l.attempt >= least(l.max_attempts, @most_lost::integer) END AS exhausted
    FROM (SELECT unnest(@ids::bigint[]) AS id) m
    CROSS JOIN LATERAL (
        SELECT d.id, d.due_at, delta_is_worked(d.state, d.finalized, d.due_at) AS pending, d.attempt, d.max_attempts, d.attempted_at, d.claimed_until,
            delta_is_worked(d.state, d.finalized, d.due_at) AND coalesce(d.claim = @claim::uuid, FALSE) AND d.claimed_until IS NOT NULL AS repeated
        FROM delta_resource d
        WHERE d.id = m.id AND d.kind = @kind AND NOT d.paused AND (@whole_kind::boolean OR d.workflow_id = @workflow_id::text)
          AND (delta_is_worked(d.state, d.finalized, d.due_at)
            OR (delta_awaits_attempt(d.state, d.finalized) AND d.due_at <= now() AND (d.attempt < d.max_attempts OR d.state = 'deleted')))
          AND (d.state <> 'deleted' OR @finalizes::boolean)
          AND (NOT @keyed::boolean OR d.limit_key IS NULL OR coalesce(d.slot_key = d.limit_key, FALSE))
          AND (d.awaited_parents IS NULL OR NOT @parented::boolean OR d.state = 'deleted' OR delta_unsynced(d.awaited_parents) IS NULL)
          AND (d.claimed_until IS NULL OR d.claim = @claim::uuid OR (d.claimed_until <= now()
            AND NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > now())))
          AND (coalesce(d.claim = @claim::uuid, FALSE)
            OR (delta_wakes_at((SELECT c.snoozed_until FROM delta_controller c WHERE c.name = @kind),
                (SELECT c.snooze_spread FROM delta_controller c WHERE c.name = @kind), d.id) <= now()
              AND (d.namespace <> ALL ((SELECT delta_snoozed_namespaces())::text[])
                OR (SELECT delta_wakes_at(n.snoozed_until, n.snooze_spread, d.id) FROM delta_namespace n WHERE n.name = d.namespace) <= now())))
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
    WHERE NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = @kind AND c.paused)
)
UPDATE delta_resource r
SET state = CASE WHEN r.state = 'deleted' THEN r.state ELSE 'pending' END,
    -- Finalize is tried until it succeeds: its attempts are counted up to max_attempts.
    attempt = CASE WHEN o.repeated OR o.exhausted THEN r.attempt ELSE least(r.attempt + 1, r.max_attempts) END,
    attempted_at = CASE WHEN o.repeated OR o.exhausted THEN r.attempted_at ELSE now() END,
    due_at = NULL,
    claim = @claim::uuid,
    claimed_until = CASE WHEN o.repeated THEN r.claimed_until ELSE now() + @claim_for::interval END,
    slot_until = NULL,
    queued_at = NULL,
    awaited_parents = NULL,
    workflow_id = coalesce(nullif(@workflow_id::text, ''), r.workflow_id),
    errors = CASE WHEN o.lost AND NOT o.exhausted
        THEN delta_append_error(r.errors, jsonb_build_object('at', now(), 'attempt', r.attempt, 'error', @lost::text), @max_errors)
        ELSE r.errors END
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[])
RETURNING sqlc.embed(r), o.exhausted::boolean AS exhausted, CASE WHEN o.lost AND NOT o.exhausted THEN o.attempt ELSE 0 END::integer AS lost_attempt,
    coalesce(o.due_at, r.attempted_at, now())::timestamptz AS was_due_at;

-- name: OpenClaims :many
-- The claims that keep rows from being claimed, and when each passes without a renewal.
SELECT r.id, r.claim, greatest(r.claimed_until, c.claimed_until)::timestamptz AS claimed_until, now()::timestamptz AS now
FROM (SELECT unnest(@ids::bigint[]) AS id) m
CROSS JOIN LATERAL (
    SELECT d.* FROM delta_resource d
    WHERE d.id = m.id AND (@whole_kind::boolean OR d.workflow_id = @workflow_id::text) AND d.claimed_until IS NOT NULL LIMIT 1
) r
LEFT JOIN LATERAL (SELECT d.claimed_until FROM delta_claim d WHERE d.id = r.claim LIMIT 1) c ON TRUE
WHERE greatest(r.claimed_until, c.claimed_until) > now();

-- name: RenewClaims :exec
INSERT INTO delta_claim (id, claimed_until) SELECT unnest(@claims::uuid[]), now() + @claim_for::interval
ON CONFLICT (id) DO UPDATE SET claimed_until = excluded.claimed_until;

-- name: LostClaims :many
-- Rows with a running call of Work that must stop: the row has another claim or is gone, or a command has deleted it.
SELECT m.id::bigint AS id, m.claim::uuid AS claim, coalesce(r.claim = m.claim, FALSE)::boolean AS deleted
FROM (SELECT unnest(@ids::bigint[]) AS id, unnest(@claims::uuid[]) AS claim) m
LEFT JOIN LATERAL (SELECT d.* FROM delta_resource d WHERE d.id = m.id LIMIT 1) r ON TRUE
WHERE r.id IS NULL OR r.claim IS DISTINCT FROM m.claim OR (r.state = 'deleted' AND r.claimed_until IS NOT NULL
    AND NOT delta_is_worked(r.state, r.finalized, r.due_at));

-- name: CloseClaims :many
-- Closes claims of calls of Work that outlived their outcome. A row that became due meanwhile is dispatched.
UPDATE delta_resource r
SET claimed_until = NULL,
    slot_key = NULL,
    slot_until = NULL,
    dispatch_at = CASE WHEN delta_awaits_attempt(r.state, r.finalized) AND r.due_at <= now() THEN now() ELSE r.dispatch_at END
WHERE r.id = ANY (ARRAY(
    SELECT d.id FROM delta_resource d
    WHERE d.id = ANY (@ids::bigint[]) AND d.claim = @claim::uuid AND d.claimed_until IS NOT NULL
    FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING r.id;

-- name: SweepClaims :exec
-- Removes claims that ended long ago.
DELETE FROM delta_claim WHERE claimed_until < now() - @older::interval;

-- name: WithholdMembers :many
-- Members of a batch that were not claimed because their kind or their namespace is snoozed: a dispatcher takes them
-- when they may be worked, or when the snooze is ended. Their attempts are not counted.
WITH o AS MATERIALIZED (
    SELECT l.id, delta_snoozed_until(@kind, l.namespace, l.id) AS wakes_at
    FROM (SELECT unnest(@ids::bigint[]) AS id) m
    CROSS JOIN LATERAL (
        SELECT d.id, d.namespace FROM delta_resource d
        WHERE d.id = m.id AND d.workflow_id = @workflow_id::text AND d.claimed_until IS NULL AND d.due_at <= now()
          AND delta_awaits_attempt(d.state, d.finalized)
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
)
UPDATE delta_resource r SET dispatch_at = now()
FROM o
WHERE r.id = o.id AND r.id = ANY (@ids::bigint[]) AND o.wakes_at > now()
RETURNING r.id;
