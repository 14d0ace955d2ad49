-- The log of changes, and its readers.

-- name: ReadChanges :many
-- A page of entries after a position, only as far as all transactions have ended, and the state of the log: at least
-- one row, with id 0 where there is no entry. Entries that the reader does not want are in it without their objects, so
-- that it gets past them.
--
-- removed reports that entries after the position are gone, up to removed_xid and removed_id; ahead that this server
-- has not reached the position; and restored that entries wait to be adopted (delta_adopt_changes). They are of the
-- same snapshot as the page. The position's transaction is a subquery so that the planner expects many rows after it,
-- and reads them in order: for a given transaction it expects none, and would read and sort all of them. The
-- installation is one row, which the planner does not know.
WITH page AS MATERIALIZED (
    SELECT c.order_xid, c.id, c.at, c.change, c.kind, c.object_id, c.namespace, c.resource_id, c.generation, c.sync_count, c.before, c.after, c.error, c.carrier,
      (cardinality(@kinds::text[]) = 0 OR c.kind = ANY (@kinds::text[]))
      AND (sqlc.arg(members)::bigint = 1
        OR (hashtextextended(c.object_id, hashtextextended(c.kind, 0)) % sqlc.arg(members)::bigint + sqlc.arg(members)::bigint)
            % sqlc.arg(members)::bigint = sqlc.arg(member)::bigint) AS wanted
    FROM delta_change c
    WHERE (c.order_xid, c.id) > ((SELECT @after_xid::xid8), @after_id::bigint) AND c.order_xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY c.order_xid, c.id
    LIMIT @most::integer
)
SELECT i.change_epoch,
    coalesce((i.changes_removed_xid, i.changes_removed_id) > (@after_xid::xid8, @after_id::bigint), FALSE)::boolean AS removed,
    coalesce(i.changes_removed_xid, '0')::xid8 AS removed_xid, coalesce(i.changes_removed_id, 0)::bigint AS removed_id,
    (@after_xid::xid8 >= pg_snapshot_xmax(pg_current_snapshot()))::boolean AS ahead,
    (p.id IS NULL AND EXISTS (SELECT FROM delta_change c WHERE c.order_xid >= pg_snapshot_xmax(pg_current_snapshot())))::boolean AS restored,
    coalesce(p.wanted, FALSE)::boolean AS wanted,
    coalesce(p.order_xid, '0')::xid8 AS order_xid, coalesce(p.id, 0)::bigint AS id, coalesce(p.at, now())::timestamptz AS at,
    coalesce(p.change, '')::text AS change, coalesce(p.kind, '')::text AS kind, coalesce(p.object_id, '')::text AS object_id,
    coalesce(p.namespace, '')::text AS namespace, coalesce(p.resource_id, 0)::bigint AS resource_id,
    coalesce(p.generation, 0)::bigint AS generation, coalesce(p.sync_count, 0)::bigint AS sync_count,
    (CASE WHEN p.wanted THEN coalesce(p.before::text, '') ELSE '' END)::text AS before,
    (CASE WHEN p.wanted THEN coalesce(p.after::text, '') ELSE '' END)::text AS after,
    coalesce(p.error, '')::text AS error, coalesce(p.carrier, '')::text AS carrier
FROM (SELECT * FROM delta_installation LIMIT 1) i LEFT JOIN page p ON TRUE
ORDER BY p.order_xid, p.id;

-- name: ChangesEnd :one
-- The position for a reader that wants only new entries: all transactions before xmin have ended.
SELECT i.change_epoch, pg_snapshot_xmin(pg_current_snapshot())::xid8 AS xmin FROM delta_installation i;

-- name: ResourceChanges :many
-- The entries of one object, the latest first. It returns all committed entries, even those that readers do not get
-- yet.
SELECT i.change_epoch, c.order_xid, c.id, c.at, c.change, c.kind, c.object_id, c.namespace, c.resource_id, c.generation, c.sync_count,
    coalesce(c.before::text, '')::text AS before, coalesce(c.after::text, '')::text AS after,
    coalesce(c.error, '')::text AS error, coalesce(c.carrier, '')::text AS carrier
FROM delta_change c CROSS JOIN (SELECT * FROM delta_installation LIMIT 1) i
WHERE c.kind = @kind AND c.object_id = @object_id AND (@before_id::bigint = 0 OR c.id < @before_id::bigint)
ORDER BY c.id DESC
LIMIT @most::integer;

-- name: LatestChanges :many
-- The latest entries that readers get, the latest first.
SELECT i.change_epoch, c.order_xid, c.id, c.at, c.change, c.kind, c.object_id, c.namespace, c.resource_id, c.generation, c.sync_count,
    coalesce(c.before::text, '')::text AS before, coalesce(c.after::text, '')::text AS after,
    coalesce(c.error, '')::text AS error, coalesce(c.carrier, '')::text AS carrier
FROM delta_change c CROSS JOIN (SELECT * FROM delta_installation LIMIT 1) i
WHERE c.order_xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY c.order_xid DESC, c.id DESC
LIMIT @most::integer;

-- name: ClaimChangeConsumer :one
-- Makes the row of a consumer, or takes it over if no other process has it. A new one begins at the position of the
-- last one of the same name in a group of another size, so that nothing is missed when a group grows or shrinks, or at
-- the given position.
INSERT INTO delta_change_consumer AS o (name, members, member, epoch, order_xid, id, claim, claimed_until)
SELECT @name, @members::integer, @member::integer, coalesce(s.epoch, @epoch::integer), coalesce(s.order_xid, @order_xid::xid8), coalesce(s.id, @id::bigint),
    @claim::uuid, clock_timestamp() + sqlc.arg(claim_for)::interval
FROM (SELECT TRUE) here
LEFT JOIN LATERAL (
    SELECT x.epoch, x.order_xid, x.id FROM delta_change_consumer x WHERE x.name = @name AND x.members <> @members::integer
    ORDER BY x.epoch, x.order_xid, x.id LIMIT 1
) s ON TRUE
ON CONFLICT (name, members, member) DO UPDATE SET claim = excluded.claim, claimed_until = excluded.claimed_until
WHERE o.claim IS NULL OR o.claim = excluded.claim OR o.claimed_until <= clock_timestamp()
RETURNING o.epoch, o.order_xid, o.id;

-- name: RenewChangeConsumer :execrows
UPDATE delta_change_consumer SET claimed_until = clock_timestamp() + sqlc.arg(claim_for)::interval
WHERE name = @name AND members = @members::integer AND member = @member::integer AND claim = @claim::uuid;

-- name: SaveChangePosition :execrows
-- Only for the process that has the consumer, and only from the position where it stood, so that a position that a
-- user's transaction saves is saved once.
UPDATE delta_change_consumer
SET epoch = @epoch, order_xid = @order_xid, id = @id, saved_at = clock_timestamp(), claimed_until = clock_timestamp() + sqlc.arg(claim_for)::interval
WHERE name = @name AND members = @members::integer AND member = @member::integer AND claim = @claim::uuid
  AND epoch = @from_epoch::integer AND order_xid = @from_xid::xid8 AND id = @from_id::bigint;

-- name: ChangePosition :one
SELECT epoch, order_xid, id FROM delta_change_consumer WHERE name = @name AND members = @members::integer AND member = @member::integer;

-- name: ReleaseChangeConsumer :exec
UPDATE delta_change_consumer SET claim = NULL, claimed_until = NULL
WHERE name = @name AND members = @members::integer AND member = @member::integer AND claim = @claim::uuid;

-- name: ForgetOtherGroups :exec
-- Once all members of a group have begun, stopped members of groups of other sizes are of no use.
DELETE FROM delta_change_consumer x
WHERE x.name = @name AND x.members <> @members::integer AND coalesce(x.claimed_until <= clock_timestamp(), TRUE)
  AND (SELECT count(*) FROM delta_change_consumer o WHERE o.name = @name AND o.members = @members::integer) = @members::integer;

-- name: ForgetChangeConsumer :execrows
-- Removes a consumer with all of its members, unless a process has one of them.
DELETE FROM delta_change_consumer x
WHERE x.name = @name
  AND NOT EXISTS (SELECT FROM delta_change_consumer o WHERE o.name = @name AND o.claimed_until > clock_timestamp());

-- name: ListChangeConsumers :many
-- How far each consumer has come. Counting the entries after its position ends at a bound. They are counted in order,
-- so that the index is used: with a LIMIT alone, a table that was never analyzed would be read as a whole for a
-- consumer with nothing left to read.
SELECT o.name, o.members, o.member, o.epoch, o.order_xid, o.id, o.created_at, o.saved_at,
    coalesce(o.claimed_until > clock_timestamp(), FALSE)::boolean AS running, i.change_epoch,
    coalesce((i.changes_removed_xid, i.changes_removed_id) > (o.order_xid, o.id), FALSE)::boolean AS removed,
    (SELECT count(*) FROM (
        SELECT FROM delta_change c WHERE (c.order_xid, c.id) > (o.order_xid, o.id) ORDER BY c.order_xid, c.id LIMIT @most::integer
    ) u)::bigint AS behind,
    coalesce(clock_timestamp() - (
        SELECT c.at FROM delta_change c WHERE (c.order_xid, c.id) > (o.order_xid, o.id) ORDER BY c.order_xid, c.id LIMIT 1
    ), '0')::interval AS lag
FROM delta_change_consumer o CROSS JOIN (SELECT * FROM delta_installation LIMIT 1) i
ORDER BY o.name, o.members, o.member;

-- name: HeldChanges :one
-- The entries that no reader gets yet, because a transaction that began before them has not ended: how many, up to a
-- bound, and how old the first is. They are counted in order, as those of consumers are. oldest_age is the age of the
-- oldest entry.
SELECT (SELECT count(*) FROM (
        SELECT FROM delta_change c WHERE c.order_xid >= pg_snapshot_xmin(pg_current_snapshot()) ORDER BY c.order_xid, c.id LIMIT @most::integer
    ) u)::bigint AS held,
    coalesce(clock_timestamp() - (
        SELECT c.at FROM delta_change c WHERE c.order_xid >= pg_snapshot_xmin(pg_current_snapshot()) ORDER BY c.order_xid, c.id LIMIT 1
    ), '0')::interval AS lag,
    coalesce(clock_timestamp() - (SELECT c.at FROM delta_change c ORDER BY c.order_xid, c.id LIMIT 1), '0')::interval AS oldest_age;

-- name: MakeChangePartition :one
SELECT delta_make_change_partition((timezone('UTC', now()))::date + sqlc.arg(ahead)::integer)::boolean AS made;

-- name: DropChangePartition :one
SELECT coalesce(delta_drop_change_partition(@keep::interval, @keep_most::interval), '')::text AS dropped;

-- name: TrimChanges :one
SELECT delta_trim_changes(@keep::interval, @keep_most::interval, @page::integer)::bigint AS removed;

-- name: AdoptChanges :one
SELECT delta_adopt_changes()::boolean AS adopted;
