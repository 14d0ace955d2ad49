-- +goose Up

-- An installation of the original, Delta on River, is taken over in place: its tables have the names of ours, in the same
-- schema. First they step aside, under names of their own, with their type, sequence and indexes. They are told by a column
-- that only the original has. What they hold is copied once our tables are made, at the end of this file. They stay as they
-- are: it is to them that the way down goes back, and what does not come over can be looked up in them. River's tables are
-- not touched.
-- +goose StatementBegin
DO $$
DECLARE
    old record;
BEGIN
    PERFORM FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relname = 'delta_namespace' AND a.attname = 'expiry_ttl'
        AND NOT a.attisdropped;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Postgres 18 has constraints named after their table, too.
    FOR old IN
        SELECT t.relname AS on_table, k.conname AS name
        FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
        WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema())) AND k.contype IN ('c', 'n')
            AND t.relname IN ('delta_resource', 'delta_namespace', 'delta_controller') AND k.conname LIKE 'delta\_%'
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I',
            old.on_table, old.name, overlay(old.name PLACING 'delta_river_' FROM 1 FOR 6));
    END LOOP;
    FOR old IN
        SELECT c.relname AS name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'i' THEN 'INDEX' ELSE 'SEQUENCE' END AS sort
        FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
            LEFT JOIN pg_depend d ON c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            JOIN pg_class t ON t.oid = coalesce(i.indrelid, d.refobjid, c.oid)
        WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema())) AND t.relkind = 'r' AND c.relkind IN ('r', 'i', 'S')
            AND t.relname IN ('delta_resource', 'delta_namespace', 'delta_controller') AND c.relname LIKE 'delta\_%'
    LOOP
        EXECUTE format('ALTER %s %I RENAME TO %I', old.sort, old.name, overlay(old.name PLACING 'delta_river_' FROM 1 FOR 6));
    END LOOP;
    ALTER TYPE delta_resource_state RENAME TO delta_river_resource_state;
    -- Not in each of its versions.
    ALTER TABLE delta_river_resource ADD COLUMN IF NOT EXISTS external_created_at timestamptz;
END
$$;
-- +goose StatementEnd

-- One row: the identity of this database. Every workflow carries the id, so that two databases in one Temporal namespace are
-- distinguished. The first client fixes the settings that all clients must share, because they are part of workflow ids.
CREATE TABLE delta_installation (
    singleton boolean PRIMARY KEY DEFAULT TRUE CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    workflow_id_prefix text,
    hash_object_ids boolean,
    -- What objects are hashed with, where they are encoded: the mark of Config.ObjectHashKey, from which the key cannot be computed. Null where objects are
    -- stored as they are.
    object_hash_key bytea,
    -- What object ids are hashed with, where they are: it never leaves the database.
    salt uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Rises with each migration. A client that knows only lower ones does not start: it could write what the newer ones do not expect.
    schema_version integer NOT NULL DEFAULT 1,
    -- Which client measures for all what telemetry says of the database, and until when it does if it says no more.
    measured_by uuid,
    measured_until timestamptz,
    -- Rises when the log of changes was restored into another server: positions of before are of no use (delta_adopt_changes).
    change_epoch integer NOT NULL DEFAULT 1,
    -- The last entry of the log, in its order, that was removed: a position before it has missed something. Null where none was.
    changes_removed_xid xid8,
    changes_removed_id bigint,
    -- Where the first client started (delta_place). A dump has the place of its original, so a database that was restored from one is
    -- noticed at once. Null before: Temporal has the place too, and tells copies of a template apart.
    place text,
    -- Rises every few minutes while clients run. Its marked value is the one that Temporal has for this installation, which was committed here some
    -- minutes before it was written there. If Temporal has a higher one than this table, Postgres has gone back; if it has a lower one than was
    -- marked, Temporal has.
    heartbeat bigint NOT NULL DEFAULT 1,
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    marked_heartbeat bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO delta_installation DEFAULT VALUES;

-- Where the tables are: the oids of the database and of a table in it. Both change when a dump is restored, and neither when a standby is promoted, a
-- data directory is copied, or pg_upgrade is run (since 15 for the database, https://www.postgresql.org/docs/release/15.0/). The system's identifier was
-- rejected, because pg_upgrade changes it.
CREATE FUNCTION delta_place() RETURNS text
LANGUAGE sql STABLE
RETURN format('%s/%s', (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), 'delta_installation'::regclass::oid);

CREATE TYPE delta_resource_state AS ENUM (
    'scheduled',
    'pending',
    'synced',
    'failed',
    'degraded',
    'expired',
    'deleted',
    'unknown'
);

-- Why a resource degraded (its attempts were used up, or Work said that further ones are hopeless), or was deleted (a complete listing
-- left it out, Work said that it is gone, or a command said so).
CREATE TYPE delta_cause AS ENUM ('exhausted', 'hopeless', 'unlisted', 'work', 'command');

-- Settings of a namespace, written by the clients that work it. A negative retention keeps rows for ever; an expiry
-- of zero or less never expires. If a setting is null, the setting of the client that works a resource holds. If synced_retention is set
-- nowhere, it is a day, or without end for a kind with complete listings, so it differs by kind.
--
-- No Work begins in the namespace until snoozed_until, because its Work has asked for it; waiting resources come back spread over
-- snooze_spread after that. A namespace without settings has a row if it was snoozed.
--
-- Keys have the collation "C" throughout, so that their indexes survive an upgrade of the system's locales, serve prefixes, and have
-- the order in which clients sort.
CREATE TABLE delta_namespace (
    name text COLLATE "C" PRIMARY KEY,
    resource_expiry interval,
    synced_retention interval,
    degraded_retention interval,
    deleted_retention interval,
    -- How many calls of Work may begin a second, of all clients and kinds together (null: no limit), and when the next one may.
    rate_limit double precision,
    next_call_at timestamptz,
    -- The maximum number of calls of Work at once in each client; null for the client's own setting.
    max_workers integer,
    -- The settings were set while clients ran, and hold whatever clients say that start.
    overridden boolean NOT NULL DEFAULT FALSE,
    snoozed_until timestamptz,
    snooze_spread interval NOT NULL DEFAULT '0',
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT delta_namespace_name_length CHECK (octet_length(name) BETWEEN 1 AND 127)
);

-- Few namespaces are snoozed, and each lease asks for them.
CREATE INDEX delta_namespace_snoozed_idx ON delta_namespace (snoozed_until) WHERE snoozed_until IS NOT NULL;

-- One row a kind that a client has started with.
CREATE TABLE delta_controller (
    name text COLLATE "C" PRIMARY KEY,
    inform_interval interval NOT NULL,
    paused boolean NOT NULL DEFAULT FALSE,
    inform_paused boolean NOT NULL DEFAULT FALSE,
    -- Until when no Work of the kind begins, as its Work has said, and over what time after that what waits comes back.
    snoozed_until timestamptz,
    snooze_spread interval NOT NULL DEFAULT '0',
    -- Its controller has no informer: nothing may ask for a pass.
    lists_nothing boolean NOT NULL DEFAULT FALSE,
    -- When the informer runs, where it is no interval: a spec of Temporal's schedules.
    inform_schedule jsonb,
    -- The longest random delay of a pass that runs by an interval; null for a tenth of the interval, 30 s at most.
    inform_jitter interval,
    -- The kind has complete listings, which delete what they leave out: what was deleted explicitly is kept until one has left it out.
    lists_all boolean NOT NULL DEFAULT FALSE,
    -- How often a complete listing runs beside the incremental ones ('0': there is none).
    full_listing_interval interval NOT NULL DEFAULT '0',
    -- Since when the informer is to run as it does: before its first success, a listing is behind from then on.
    informs_since timestamptz NOT NULL DEFAULT now(),
    -- When a client last compared its schedules in Temporal with this row; null if that is to be done at once.
    schedules_checked_at timestamptz,
    -- The kind's defaults for settings that the namespace does not have: the retentions, and the time after which resources without
    -- attempts left are tried again.
    synced_retention interval,
    degraded_retention interval,
    deleted_retention interval,
    degraded_retry interval,
    -- The task queue of the user's own workers; null if clients run the workers.
    task_queue text COLLATE "C",
    -- Set once a client with a Finalizer has started: rows of deleted resources are kept until it has succeeded. Clients without one do not
    -- reset it, because they may be older.
    finalizes boolean NOT NULL DEFAULT FALSE,
    -- Settled steps of the kind are appended to delta_change.
    logs_changes boolean NOT NULL DEFAULT FALSE,
    -- Kinds of parents: resources of this kind are touched when such a parent has changed.
    touched_by text[] COLLATE "C" NOT NULL DEFAULT '{}',
    -- Where the calls of Work are limited in their rate: when the next one may begin.
    next_call_at timestamptz,
    -- How many calls of Work run at once for each limit key, and how many begin a second; 0 for no limit. Of the client that started last.
    key_concurrency integer NOT NULL DEFAULT 0,
    key_rate double precision NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT delta_controller_name_length CHECK (octet_length(name) BETWEEN 1 AND 127)
);

-- How far the listings of a kind have come: a row for each shard that its controller has named (Sharder), and one with the shard '' for a
-- kind that is listed as a whole. A row is made when it is needed.
CREATE TABLE delta_shard (
    kind text COLLATE "C" NOT NULL,
    shard text COLLATE "C" NOT NULL,
    -- The cursor, which moves only after a complete pass.
    last_inform_time timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00Z',
    -- The position that the informer keeps itself, of the latest complete pass that gave one, and when that pass began.
    inform_cursor text NOT NULL DEFAULT '',
    inform_cursor_at timestamptz,
    -- When the last listing of everything that was complete began.
    last_full_listing timestamptz,
    -- When a pass ended last without an error, and with one; the error is empty where the latest pass had none.
    succeeded_at timestamptz,
    failed_at timestamptz,
    error text NOT NULL DEFAULT '',
    paused boolean NOT NULL DEFAULT FALSE,
    -- Since when the controller no longer names the shard; null while it does. Its resources are not deleted before somebody has decided.
    gone_at timestamptz,
    -- Since when the controller has named the shard, without a break; the shard '' is never named.
    named_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, shard)
);

-- The state of each resource, and the outbox of its wake-ups. docs/design.md describes the meaning and the writers of each column,
-- and what happens if a process dies in between.
--
-- generation counts sync episodes: it rises when the object or its options change, when the resource expires and when
-- a command syncs it again. attempt counts the attempts of one generation, snoozes the calls of Work that returned a snooze.
-- sync_count counts syncs over the life of the row: the first one created the external object, the others updated it.
--
-- due_at is the time of the next step of the lifecycle (null: there is none). dispatch_at is when a dispatcher takes the row: at once
-- after an inform, or some time after due_at for a row that waits for a timer, so that a lost wake-up costs time and never a resource.
--
-- claim is the latest right to call Work for the row. It is open until claimed_until becomes null, and alive until that time, or
-- the one in delta_claim, has passed. Its writes are fenced by it.
--
-- workflow_id is the id of the batch that the row is leased to, or of the workflow that claimed it last.
--
-- cause is written with each transition to degraded or deleted, means nothing in other states, and is null again once the row is synced. Null in a
-- degraded row, such as one taken over from Delta on River, means 'exhausted'.
--
-- revision is the object's own version (ObjectWithRevision); null if it has none. An inform with a lower one is stale and changes nothing. It is
-- a column because the writing statement has to compare it.
--
-- shard is the part of the external system that lists the object (ObjectWithShard), such as an account; null if it has none. Only a listing
-- of that shard can find the object gone.
--
-- limit_key is the key by which calls of Work for this and other objects are limited together (ObjectWithLimitKey); null if it has none.
--
-- slot_key is the limit key in which the row has a slot: until slot_until or, if that is null, as long as its claim is alive. If dispatch_at is null,
-- queued_at is the time since when the row waits for a slot. The functions delta_take_slots and delta_wake_keys below write both.
--
-- parents are the resources that have to be synced once before this one is worked (ObjectWithParents), each as kind/id; null if it has none.
-- awaited_parents are those of them that were not seen synced yet, null once all were, because a parent may be gone by the time of the next generation.
-- If it is not null, but dispatch_at and queued_at are, a row that is not deleted waits for the first of them, and is in no dispatcher's way.
--
-- touched_hash is the hash of the object with which the resource was synced last, to detect its next change; null if it touches no children
-- (delta_is_touching), after it was deleted, and if it was synced with an object that was no longer the latest.
--
-- generation_at is the beginning of the transaction that made the generation. carrier has the values that the inform carries to its Work, one a line:
-- W3C's traceparent (its bytes in base64, because each of the three writes of a sync copies them) and tracestate, and headers of context propagators; null
-- if there are none, or no inform made the generation. It is not in metadata, because the user owns metadata, and a change of it may call Work.
--
-- object_version is the version of the object's Go type that wrote the JSON (ObjectWithVersion); 0 if the type has none.
--
-- written_by is the latest transaction with an inform, an outcome or a command. A complete listing deletes only rows written by transactions that
-- ended before the listing began. A time would not do, because now() is the beginning of a transaction, which may commit hours later. An expiry, or
-- another attempt at a degraded resource, does not change it. informed_by is the latest one with an inform: what a listing of a source goes by, because
-- an outcome or a command does not say that the source has the object, and no later listing may come.
--
-- change_xid is the order_xid of the resource's latest entry in delta_change, and synced_object the object as it was synced last; null if the kind has
-- no log. revived_generation is the generation with which an inform revived a deleted resource, so that the statement can see that it did.
--
-- A sync writes a row three times: lease, claim, outcome. The claim changes no indexed column, and fits into a page that is half full: syncing
-- 100,000 rows leaves 237,000 dead tuples and 101 MB until the next vacuum, and with full pages 339,000 and 171 MB, at the same speed.
CREATE TABLE delta_resource (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 1,
    synced_generation bigint NOT NULL DEFAULT 0,
    sync_count bigint NOT NULL DEFAULT 0,
    revision bigint,
    written_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    informed_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    created_at timestamptz NOT NULL DEFAULT now(),
    generation_at timestamptz NOT NULL DEFAULT now(),
    attempted_at timestamptz,
    synced_at timestamptz,
    external_created_at timestamptz,
    due_at timestamptz,
    dispatch_at timestamptz,
    claimed_until timestamptz,
    -- When an informer has listed the resource last while it was degraded, or deleted by Work or a command: it is kept for its retention after
    -- that. It may be a tenth of the retention old (NoteListed).
    listed_at timestamptz,
    claim uuid,
    state delta_resource_state NOT NULL DEFAULT 'scheduled',
    cause delta_cause,
    -- For a deleted resource: whether its Finalizer has succeeded. Null if the kind has no Finalizer; without meaning in other states.
    finalized boolean,
    attempt integer NOT NULL DEFAULT 0,
    snoozes integer NOT NULL DEFAULT 0,
    object_version integer NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL,
    priority smallint NOT NULL DEFAULT 3,
    paused boolean NOT NULL DEFAULT FALSE,
    kind text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C",
    hashed_id text COLLATE "C",
    shard text COLLATE "C",
    limit_key text COLLATE "C",
    slot_key text COLLATE "C",
    slot_until timestamptz,
    queued_at timestamptz,
    parents text[] COLLATE "C",
    awaited_parents text[] COLLATE "C",
    touched_hash bytea,
    hash bytea NOT NULL,
    object jsonb NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    errors jsonb[] NOT NULL DEFAULT '{}',
    carrier text,
    change_xid xid8,
    synced_object jsonb,
    revived_generation bigint,
    -- For indexes: one that names state itself would be written by each claim, because a claim changes it.
    is_deleted boolean NOT NULL GENERATED ALWAYS AS (state = 'deleted') STORED,
    -- Null for all but the few that somebody may have to look at: degraded; failed, which stays so while it is tried again; and what was given to a worker in its
    -- generation and came back without an attempt, scheduled or deleted. A claim leaves all but the last as they are, and writes no index.
    trouble delta_resource_state GENERATED ALWAYS AS (CASE
        WHEN state = 'degraded' THEN state
        WHEN state = 'failed' OR (state = 'pending' AND attempt > 1) THEN 'failed'::delta_resource_state
        WHEN (state = 'scheduled' OR (state = 'deleted' AND finalized IS FALSE)) AND (snoozes = 0 OR state = 'deleted') AND attempted_at >= generation_at THEN state
    END) STORED,
    CONSTRAINT delta_resource_kind_object_id_key UNIQUE (kind, object_id),
    CONSTRAINT delta_resource_max_attempts_positive CHECK (max_attempts > 0),
    CONSTRAINT delta_resource_attempt_bounded CHECK (snoozes >= 0 AND attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT delta_resource_priority_range CHECK (priority BETWEEN 1 AND 5),
    CONSTRAINT delta_resource_synced_generation_bounded CHECK (synced_generation BETWEEN 0 AND generation),
    CONSTRAINT delta_resource_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object')
) WITH (fillfactor = 50);

-- The dispatcher asks, for one kind, for the rows that are due, by priority and oldest first. Rows at rest for ever are not in
-- it, and paused ones neither: they would stand in front of the others each time.
CREATE INDEX delta_resource_dispatch_idx ON delta_resource (kind, priority, dispatch_at) WHERE dispatch_at IS NOT NULL AND NOT paused;

-- The rows that have a slot of their limit key, and those that wait for one. Where a kind limits no keys, both are empty, and no statement
-- touches them: the columns of which they are made stay as they are. What waits is in no other index, so a dispatcher never steps over it.
CREATE INDEX delta_resource_slot_idx ON delta_resource (kind, slot_key) WHERE slot_key IS NOT NULL;
CREATE INDEX delta_resource_queue_idx ON delta_resource (kind, limit_key, priority, queued_at)
    WHERE queued_at IS NOT NULL AND dispatch_at IS NULL AND NOT paused;

-- The rows that wait for a parent, by that parent: dispatchers look at the parents, and not at the rows. Where a kind has none it is empty, and no statement
-- touches it.
CREATE INDEX delta_resource_parent_idx ON delta_resource (kind, (awaited_parents[1]))
    WHERE awaited_parents IS NOT NULL AND dispatch_at IS NULL AND queued_at IS NULL AND NOT is_deleted;

-- The children of a parent, for touches. A btree cannot have a row under each of its parents. Kinds without parents are not in it.
CREATE INDEX delta_resource_parents_idx ON delta_resource USING gin (parents) WHERE parents IS NOT NULL;

-- What was deleted explicitly and waits for a complete listing (delta_awaits_listing), which looks for it here, page by page (WakeUnlisted). It names
-- neither state nor due_at: a claim changes both, and would have to write all indexes. A million rows in it are 41 MB as it is built, and 72 MB if they come in any
-- order.
CREATE INDEX delta_resource_unlisted_idx ON delta_resource (kind, coalesce(shard, ''), id) WHERE dispatch_at IS NULL AND cause IN ('work', 'command');

-- Indexes of resources that may need attention, by kind and in the order of ids: few of many. Resources synced without a failure are never in them.
CREATE INDEX delta_resource_trouble_idx ON delta_resource (trouble, kind) WHERE trouble IS NOT NULL;
CREATE INDEX delta_resource_trouble_id_idx ON delta_resource (id) WHERE trouble IS NOT NULL;

-- One row for each limit key that was used lately. Slots are given and taken only by transactions that have locked the key's row. next_call_at
-- is when the key's rate has room for one more call, less what may come at once. lead is how many seconds before their calls rows are woken: what
-- they lately took from there to their claims, so that the rate is used up. wake_at is when a dispatcher looks for rows to wake; null where none waits.
CREATE TABLE delta_key (
    kind text COLLATE "C" NOT NULL,
    limit_key text COLLATE "C" NOT NULL,
    next_call_at timestamptz,
    lead double precision NOT NULL DEFAULT 0,
    wake_at timestamptz,
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, limit_key)
) WITH (fillfactor = 50);

CREATE INDEX delta_key_wake_idx ON delta_key (kind, wake_at) WHERE wake_at IS NOT NULL;
-- What a pass of a shard looks at, and of which shards something is left. Kinds without shards are not in it, and a sync changes no column of it.
CREATE INDEX delta_resource_shard_idx ON delta_resource (kind, is_deleted, shard, object_id) WHERE shard IS NOT NULL;

-- Changed parents, each as kind/id, with children of a kind that are not all touched yet: one row for a parent and a kind, however often the parent changes. The
-- statement that marks the parent synced writes it, and it is removed when all children are touched. changed_at is when the parent was synced: a call of Work
-- that began later has seen the change. look_at is when a client takes the row; it lies in the future while a client works on it.
CREATE TABLE delta_touch (
    kind text COLLATE "C" NOT NULL,
    parent text COLLATE "C" NOT NULL,
    changed_at timestamptz NOT NULL,
    look_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, parent)
) WITH (fillfactor = 50);

CREATE INDEX delta_touch_look_idx ON delta_touch (kind, look_at);

-- The claims that last longer than a few seconds, with the time until which each was renewed. Renewing them in delta_resource would write a new
-- version of a large row each time, and would have to wait if a transaction of the user has locked it.
CREATE TABLE delta_claim (
    id uuid PRIMARY KEY,
    claimed_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Where object ids are kept from Temporal, its workflows name resources by a hash.
CREATE UNIQUE INDEX delta_resource_hashed_id_idx ON delta_resource (kind, hashed_id) WHERE hashed_id IS NOT NULL;

-- What a complete listing has listed so far, so that what it no longer lists can be told at its end. The rows of a pass
-- are gone when it is.
CREATE TABLE delta_listing (
    pass uuid NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    listed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pass, object_id)
);

-- Objects that a listing named and that cannot be taken, each with the rule that it breaks. A row is gone when the object was taken, or when a
-- complete listing no longer names it. The object is kept where it can be, and the hash that its resource had (null: there was none): a
-- later version of the controller may take it, and an incremental listing does not name it again. If the hash is another by then, something
-- newer was informed.
CREATE TABLE delta_refused (
    kind text COLLATE "C" NOT NULL,
    -- Of the listing; '' for one of the whole kind.
    shard text COLLATE "C" NOT NULL DEFAULT '',
    object_id text COLLATE "C" NOT NULL,
    rule text NOT NULL,
    object bytea,
    resource_hash bytea,
    refused_at timestamptz NOT NULL DEFAULT now(),
    last_refused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, shard, object_id)
);

-- Whether an object of whichever shard was refused.
CREATE INDEX delta_refused_object_id_idx ON delta_refused (kind, object_id);

-- The latest passes of informers: a row for each try of a run. ended_at is null while it goes on; where its worker was lost, until the next
-- try of the run begins. Each pass removes those of its kind and shard that are too many.
CREATE TABLE delta_inform (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    shard text COLLATE "C" NOT NULL DEFAULT '',
    -- schedule, request (RunInform, ScheduleInform, the command), source, for a listing that a source makes by itself, or workflow, for a run that
    -- somebody started in Temporal.
    trigger text NOT NULL,
    full_listing boolean NOT NULL DEFAULT FALSE,
    workflow_id text NOT NULL,
    run_id text NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    listed bigint NOT NULL DEFAULT 0,
    new bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    stale bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    -- How many of the refused are noted without their object, or not at all.
    unkept bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    withheld bigint NOT NULL DEFAULT 0,
    error text NOT NULL DEFAULT ''
);

CREATE INDEX delta_inform_kind_idx ON delta_inform (kind, id);
CREATE INDEX delta_inform_shard_idx ON delta_inform (kind, shard, id);

-- Deletions that were withheld because a complete listing left out suspiciously much, or named nothing at all, until a listing leaves out less,
-- or they were carried out. The reason is that of the latest listing. A decision holds for listings that leave out no more than decided_missing.
CREATE TABLE delta_withheld (
    kind text COLLATE "C" NOT NULL,
    shard text COLLATE "C" NOT NULL DEFAULT '',
    missing bigint NOT NULL,
    total bigint NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    decision text CHECK (decision IN ('approved', 'dismissed')),
    decided_missing bigint,
    decided_at timestamptz,
    PRIMARY KEY (kind, shard)
);

-- The complete listings that run, each with a claim that is alive while it does (delta_claim). While there is one, informs of its kind and
-- shard (all, where that is '') that change nothing write written_by and informed_by all the same: the object exists, whatever the listing says.
CREATE TABLE delta_pass (
    claim uuid PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    shard text COLLATE "C" NOT NULL DEFAULT ''
);

-- Objects that the latest passes found older than what is stored, and in how many passes in a row. A few of these are normal: a
-- webhook was faster. An object that is always older is a Compare, or a Revision, that is wrong.
CREATE TABLE delta_stale (
    kind text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    pass uuid NOT NULL,
    passes integer NOT NULL DEFAULT 1,
    since timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, object_id)
);

-- What no pass has listed for long is removed, the oldest first: where a Compare is wrong, all objects of a kind are here.
CREATE INDEX delta_stale_seen_idx ON delta_stale (seen_at);

-- What feeds the objects of a kind from where they are kept (delta.Source). One run of it writes at a time: epoch is that of the latest, and what an
-- earlier one still has to write names its own, and is refused. position is the source's own text, which is written with what it has led to. error is
-- why the latest run ended; null again when another one has lasted for a while.
CREATE TABLE delta_source (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    position text,
    runner text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    written_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    failed_at timestamptz,
    error text,
    -- What the run says of itself: what it does, since when and why. caught_up_at is until when all that had changed there was written: it stands still while the
    -- source is behind or does not run. How many bytes of log, or messages, are before it is counted from time to time. These are null where it does not say.
    phase text NOT NULL DEFAULT 'running',
    phase_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL DEFAULT '',
    caught_up_at timestamptz,
    behind_bytes bigint,
    behind_messages bigint,
    PRIMARY KEY (kind, name)
) WITH (fillfactor = 50);

-- Deliveries that were received, such as calls of webhooks, each with what it has led to: one that comes again does nothing. Rows are removed once they
-- have expired.
CREATE TABLE delta_delivery (
    endpoint text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (endpoint, id)
);

CREATE INDEX delta_delivery_expires_idx ON delta_delivery (expires_at);

-- The commands that people have given, with their names and the results. A command that has not ended is running, or its process has died.
CREATE TABLE delta_command (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    actor text NOT NULL,
    command text NOT NULL,
    -- What it was for: each is empty where it was not for one.
    kind text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    shard text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    filter text NOT NULL,
    -- How many resources were changed; null until it has ended, and where that is not known.
    resources bigint,
    error text
);

CREATE INDEX delta_command_object_idx ON delta_command (kind, object_id, id);
CREATE INDEX delta_command_begun_idx ON delta_command (begun_at);

-- Attempts of a kind by minute, for two days. The row with the minute '-infinity' has all attempts since the first, for a counter, because a sum over minutes
-- would fall when old ones are removed. Each client adds its count once a minute, because only it knows its attempts.
CREATE TABLE delta_figure (
    kind text COLLATE "C" NOT NULL,
    minute timestamptz NOT NULL,
    synced bigint NOT NULL,
    finalized bigint NOT NULL,
    failed bigint NOT NULL,
    degraded bigint NOT NULL,
    deleted bigint NOT NULL,
    snoozed bigint NOT NULL,
    undecodable bigint NOT NULL,
    -- How long calls took: the sum, and how many took up to 1, 2, 4, 8 ms and so on, the last of them longer than all bounds. Quantiles of several
    -- clients cannot be added, but these can.
    seconds double precision NOT NULL,
    durations bigint[] NOT NULL,
    PRIMARY KEY (kind, minute)
) WITH (fillfactor = 50);

-- The log of changes: an entry for each settled step of a resource, for kinds with a log, appended by the statement that writes the step. Readers read in the
-- order of order_xid and id, and only as far as all transactions have ended; docs/design.md says why this skips nothing, and why the entries of a
-- resource come in order.
--
-- The sequence has CACHE 1, so that ids rise over the entries of a resource, which are written under the lock of its row. at is when the entry was written, not
-- when its transaction began, because that may have been before its partition was dropped. Partitions of a day each are created ahead
-- (delta_make_change_partition); an entry without one goes to the default partition, so that no outcome fails because of a missing partition.
--
-- before is the object of the sync before, after the one that is synced, or failed to be. carrier is the inform's (delta_resource).
CREATE SEQUENCE delta_change_id_seq CACHE 1;

CREATE TABLE delta_change (
    id bigint NOT NULL DEFAULT nextval('delta_change_id_seq'),
    order_xid xid8 NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    change text NOT NULL CHECK (change IN ('created', 'updated', 'failed', 'deleted', 'finalized', 'revived')),
    kind text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    resource_id bigint NOT NULL,
    generation bigint NOT NULL,
    sync_count bigint NOT NULL,
    before jsonb,
    after jsonb,
    error text,
    carrier text
) PARTITION BY RANGE (at);

ALTER SEQUENCE delta_change_id_seq OWNED BY delta_change.id;

CREATE TABLE delta_change_default PARTITION OF delta_change DEFAULT;

-- What readers go by, and the history of one resource.
CREATE INDEX delta_change_order_idx ON delta_change (order_xid, id);
CREATE INDEX delta_change_resource_idx ON delta_change (kind, object_id, id);

-- How far each consumer of the log has come: the order_xid and the id of the last entry that it has handled. One of a group of so many members gets the
-- entries of its share of the resources. claim is the process that reads, which is fenced by it, claimed_until the time after which another may.
CREATE TABLE delta_change_consumer (
    name text COLLATE "C" NOT NULL,
    members integer NOT NULL,
    member integer NOT NULL,
    epoch integer NOT NULL,
    order_xid xid8 NOT NULL,
    id bigint NOT NULL,
    claim uuid,
    claimed_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    saved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, members, member),
    CONSTRAINT delta_change_consumer_member_bounded CHECK (member >= 0 AND member < members)
) WITH (fillfactor = 50);

-- Autovacuum by default waits until a fifth of a table is dead. Of ten million resources that are two million dead rows, which the
-- dispatcher's index leads to until then, and which its scan has to step over. A fiftieth keeps that bounded, and analyzing as often
-- keeps the planner from believing that a table is empty which is filling up. Without a delay (default: 2 ms) a vacuum of these
-- tables keeps up with syncs that write each row three times; it is short, since it comes often.
ALTER TABLE delta_resource SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0
);

-- This table is small, and each row is updated every few seconds while Work runs, so vacuum by a number of dead rows, not by a share of the
-- live ones.
ALTER TABLE delta_claim SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- Each page that a source writes moves its position.
ALTER TABLE delta_source SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

ALTER TABLE delta_key SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- It is filled by a pass and emptied at its end. Before it is analyzed the planner knows nothing of the pass.
ALTER TABLE delta_listing SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1
);

-- The channel that this installation's dispatchers listen on. It is a function, because the planner overestimates the cost of a subquery on a table
-- that was never analyzed, and would then plan each inform again.
CREATE FUNCTION delta_channel() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN 'delta_' || (SELECT id FROM delta_installation);

-- What Temporal knows a resource by, where object ids are kept from it.
CREATE FUNCTION delta_hash_id(kind text, object_id text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN encode(sha256(convert_to((SELECT salt::text FROM delta_installation) || '/' || kind || '/' || object_id, 'UTF8')), 'hex');

-- Appends an attempt's error and keeps the latest of them.
CREATE FUNCTION delta_append_error(errors jsonb[], error jsonb, keep integer) RETURNS jsonb[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (errors || error)[greatest(cardinality(errors) + 2 - keep, 1):];

-- The text of the latest error; empty where there is none.
CREATE FUNCTION delta_latest_error(errors jsonb[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(errors[cardinality(errors)] ->> 'error', '');

-- What a filter means, for all that list, count or change what one chooses: an empty list asks for nothing, and so does an empty error. The planner puts the
-- expression in the place of the call, so that indexes serve it, if it knows the arguments: a statement with it is planned each time (db.Planned).
CREATE FUNCTION delta_is_chosen(r delta_resource, kinds text[], object_ids text[], namespaces text[], shards text[], states text[], tags text[], labels jsonb,
    error text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (cardinality(kinds) = 0 OR r.kind = ANY (kinds))
    AND (cardinality(object_ids) = 0 OR r.object_id = ANY (object_ids))
    AND (cardinality(namespaces) = 0 OR r.namespace = ANY (namespaces))
    AND (cardinality(shards) = 0 OR r.shard = ANY (shards))
    AND (cardinality(states) = 0 OR r.state::text = ANY (states))
    AND (cardinality(states) = 0 OR NOT states <@ '{degraded,failed}' OR r.trouble IN ('degraded', 'failed')) -- which has an index
    AND (cardinality(tags) = 0 OR r.tags @> tags)
    AND (labels = '{}' OR r.metadata @> labels)
    AND (error = '' OR (r.trouble IN ('degraded', 'failed', 'scheduled', 'deleted') AND strpos(delta_latest_error(r.errors), error) > 0));

-- Whether settled steps of a kind are appended to delta_change.
CREATE FUNCTION delta_logs_changes(kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce((SELECT c.logs_changes FROM delta_controller c WHERE c.name = kind), FALSE);

-- What an entry of delta_change is ordered by: the transaction that writes it, or the order_xid of the resource's previous entry, if that is later. It is
-- never before the writer, so that no reader passes the entry before the writer has ended. It is never before the previous entry, whatever
-- transaction wrote that: one of the user's may have had its id for long before it completes an attempt.
--
-- A previous one that no transaction of this server can have had is of a server that this database was restored from. It is in PL/pgSQL, where each
-- statement has a snapshot of its own: the previous entry may be of a transaction that has ended since the caller's statement began.
-- +goose StatementBegin
CREATE FUNCTION delta_order_xid(previous xid8) RETURNS xid8
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN greatest(pg_current_xact_id(), CASE WHEN previous < pg_snapshot_xmax(pg_current_snapshot()) THEN previous END);
END
$$;
-- +goose StatementEnd

-- Appends an entry to delta_change. It is called where a statement returns what it has written, and so exactly once for each row: a SET clause is
-- evaluated again if the row has changed meanwhile.
-- +goose StatementBegin
CREATE FUNCTION delta_append_change(
    change text, order_xid xid8, resource_id bigint, kind text, object_id text, namespace text, generation bigint, sync_count bigint,
    before jsonb, after jsonb, error text, carrier text
) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    appended bigint;
BEGIN
    INSERT INTO delta_change AS c (
        change, order_xid, resource_id, kind, object_id, namespace, generation, sync_count, before, after, error, carrier
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    RETURNING c.id INTO appended;
    RETURN appended;
END
$$;
-- +goose StatementEnd

-- Makes the partition of delta_change for a day, in UTC, and reports whether it did. Where the default partition has entries of the day, they stay there.
-- To attach a table blocks no writer, but for the default partition, for as long as it takes to see that it has nothing of the day.
-- +goose StatementBegin
CREATE FUNCTION delta_make_change_partition(day date) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    of_schema text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'delta_change'::regclass);
    name text := 'delta_change_' || to_char(day, 'YYYYMMDD');
    from_time timestamptz := day::timestamp AT TIME ZONE 'UTC';
    to_time timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(format('%I.%I', of_schema, name)) IS NOT NULL
        OR NOT pg_try_advisory_xact_lock(hashtextextended('delta_change', 'delta_change'::regclass::oid::bigint))
        OR EXISTS (SELECT FROM delta_change_default d WHERE d.at >= from_time AND d.at < to_time) THEN
        RETURN FALSE;
    END IF;
    PERFORM set_config('lock_timeout', '500ms', TRUE);
    EXECUTE format('CREATE TABLE %I.%I (LIKE %I.delta_change INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', of_schema, name, of_schema);
    EXECUTE format('ALTER TABLE %I.delta_change ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)', of_schema, of_schema, name, from_time, to_time);
    RETURN TRUE;
END
$$;
-- +goose StatementEnd

-- Drops the oldest partition of delta_change that ended longer than keep ago, and returns its name; null if there is none, or it is locked now. A partition
-- with entries that a consumer has not handled is kept until it ended keep_most ago.
--
-- Dropping a partition locks delta_change for a moment: it waits at most half a second for other transactions, and writers wait behind it as long.
-- +goose StatementBegin
CREATE FUNCTION delta_drop_change_partition(keep interval, keep_most interval) RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    part record;
    of_schema text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'delta_change'::regclass);
    last_xid xid8;
    last_id bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('delta_change', 'delta_change'::regclass::oid::bigint)) THEN
        RETURN NULL;
    END IF;
    SELECT p.name, p.over_at INTO part FROM (
        SELECT c.relname::text AS name, (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' AS over_at
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'delta_change'::regclass AND c.relname ~ '^delta_change_[0-9]{8}$'
    ) p
    WHERE p.over_at <= now() - keep ORDER BY p.over_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('lock_timeout', '500ms', TRUE);
    EXECUTE format('LOCK TABLE %I.delta_change IN ACCESS EXCLUSIVE MODE', of_schema);
    EXECUTE format('SELECT c.order_xid, c.id FROM %I.%I c ORDER BY c.order_xid DESC, c.id DESC LIMIT 1', of_schema, part.name) INTO last_xid, last_id;
    IF last_xid IS NOT NULL THEN
        IF part.over_at > now() - keep_most
            AND EXISTS (SELECT FROM delta_change_consumer o WHERE (o.order_xid, o.id) < (last_xid, last_id)) THEN
            RETURN NULL;
        END IF;
        PERFORM delta_note_removed_changes(last_xid, last_id);
    END IF;
    EXECUTE format('DROP TABLE %I.%I', of_schema, part.name);
    RETURN part.name;
END
$$;
-- +goose StatementEnd

-- Notes that entries of delta_change up to one are removed.
-- +goose StatementBegin
CREATE FUNCTION delta_note_removed_changes(xid xid8, entry bigint) RETURNS void
LANGUAGE sql VOLATILE
AS $$
    UPDATE delta_installation SET changes_removed_xid = xid, changes_removed_id = entry
    WHERE changes_removed_xid IS NULL OR (changes_removed_xid, changes_removed_id) < (xid, entry);
$$;
-- +goose StatementEnd

-- Removes a page of what has been in the default partition of delta_change for longer than keep, and says how many: of what a consumer has not handled,
-- only what is older than keep_most.
-- +goose StatementBegin
CREATE FUNCTION delta_trim_changes(keep interval, keep_most interval, page integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    removed bigint;
    last_xid xid8;
    last_id bigint;
BEGIN
    WITH old AS (
        SELECT d.ctid AS place FROM delta_change_default d
        WHERE d.at < now() - keep
          AND (d.at < now() - keep_most
            OR NOT EXISTS (SELECT FROM delta_change_consumer o WHERE (o.order_xid, o.id) < (d.order_xid, d.id)))
        LIMIT page
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM delta_change_default d USING old WHERE d.ctid = old.place RETURNING d.order_xid, d.id
    )
    SELECT count(*) OVER (), g.order_xid, g.id INTO removed, last_xid, last_id FROM gone g ORDER BY g.order_xid DESC, g.id DESC LIMIT 1;
    IF removed > 0 THEN
        PERFORM delta_note_removed_changes(last_xid, last_id);
    END IF;
    RETURN coalesce(removed, 0);
END
$$;
-- +goose StatementEnd

-- Takes over a log that was restored from a dump of another server, and reports whether there was one: it has entries of transactions that have not begun
-- here, which no reader would ever reach. Of all that is there, order_xid becomes 3, the oldest there is, so that id alone orders it: in the entries of a
-- resource it always rises. Positions of before are of no use then, which readers see by the epoch.
-- +goose StatementBegin
CREATE FUNCTION delta_adopt_changes() RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM delta_change c WHERE c.order_xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN
        RETURN FALSE;
    END IF;
    PERFORM FROM delta_installation FOR UPDATE;
    -- Another may have done so meanwhile.
    IF NOT EXISTS (SELECT FROM delta_change c WHERE c.order_xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN
        RETURN FALSE;
    END IF;
    UPDATE delta_change SET order_xid = '3';
    UPDATE delta_installation SET change_epoch = change_epoch + 1, changes_removed_xid = NULL, changes_removed_id = NULL;
    RETURN TRUE;
END
$$;
-- +goose StatementEnd

-- The time when a resource of a snoozed kind or namespace may be worked again. Within the spread it differs for each resource, so that they do not all
-- come back at once. -infinity if nothing was snoozed.
CREATE FUNCTION delta_wakes_at(until timestamptz, spread interval, id bigint) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(until + spread * ((id % 64) / 64.0), '-infinity');

-- The namespaces that are snoozed or still within their spread. No spread is longer than a minute.
CREATE FUNCTION delta_snoozed_namespaces() RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT n.name FROM delta_namespace n
    WHERE n.snoozed_until > now() - interval '1 minute' AND n.snoozed_until + n.snooze_spread > now()
);

-- The kinds of which there are resources. It goes from one to the next in the index, and reads no others.
CREATE FUNCTION delta_kinds() RETURNS TABLE (kind text)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH RECURSIVE there AS (
        (SELECT r.kind FROM delta_resource r ORDER BY r.kind LIMIT 1)
        UNION ALL
        SELECT (SELECT r.kind FROM delta_resource r WHERE r.kind > t.kind ORDER BY r.kind LIMIT 1) FROM there t WHERE t.kind IS NOT NULL
    )
    SELECT t.kind FROM there t WHERE t.kind IS NOT NULL
$$;

-- Late resources, by the one definition: the next step has been due, or the claim dead, for longer than grace, whatever was dispatched. A resource is not late if it, its kind or
-- its namespace is paused or snoozed. For kinds, or all if these are empty, it reads the dispatcher's index, a range for each kind and priority: a row is due there at most longest
-- after it was leased. In each range it reads at most most rows, in the order of dispatchers; all if most is null. For ids it reads only these rows.
--
-- unfinalized counts the resources that wait for Finalize and that no dispatcher has leased within grace. A dispatcher with a Finalizer leases a due row within
-- seconds, so no client with one is running.
CREATE FUNCTION delta_late(kinds text[], ids bigint[], grace interval, longest interval, most integer)
RETURNS TABLE (id bigint, kind text, since timestamptz, unfinalized boolean)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT d.id, d.kind, coalesce(d.due_at, d.claimed_until), d.state = 'deleted' AND d.finalized IS FALSE AND d.dispatch_at < now() - grace
    FROM (
        SELECT r.* FROM (
            SELECT t.kind FROM delta_kinds() AS t WHERE cardinality(kinds) = 0 AND ids IS NULL
            UNION ALL
            SELECT unnest(kinds) WHERE ids IS NULL
        ) k
        CROSS JOIN unnest('{1,2,3,4,5}'::smallint[]) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT n.* FROM delta_resource n
            WHERE n.kind = k.kind AND n.priority = p.priority AND n.dispatch_at <= now() + longest AND NOT n.paused
            ORDER BY n.dispatch_at
            LIMIT most
        ) r
        UNION ALL
        SELECT r.* FROM unnest(ids) AS i (id) CROSS JOIN LATERAL (SELECT r.* FROM delta_resource r WHERE r.id = i.id LIMIT 1) r
    ) d
    WHERE NOT d.paused AND coalesce(d.due_at, d.claimed_until) < now() - grace
      AND d.namespace <> ALL ((SELECT delta_snoozed_namespaces())::text[])
      AND (d.claimed_until IS NULL OR (d.claimed_until <= now()
        AND NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > now() - grace)))
      AND NOT EXISTS (SELECT FROM delta_controller c WHERE c.name = d.kind AND (c.paused OR c.snoozed_until + c.snooze_spread > now()))
$$;

-- delta_wakes_at of one resource, by its kind and its namespace; null where neither has a row.
CREATE FUNCTION delta_snoozed_until(kind text, namespace text, id bigint) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN greatest(
    (SELECT delta_wakes_at(c.snoozed_until, c.snooze_spread, delta_snoozed_until.id) FROM delta_controller c
     WHERE c.name = delta_snoozed_until.kind),
    (SELECT delta_wakes_at(n.snoozed_until, n.snooze_spread, delta_snoozed_until.id) FROM delta_namespace n
     WHERE n.name = delta_snoozed_until.namespace)
);

-- How long a resource that has settled is kept before its row is removed; null for ever. Settings of its namespace come first; the
-- others are for a namespace that no client has configured.
CREATE FUNCTION delta_retention(state delta_resource_state, n delta_namespace, synced interval, degraded interval, deleted interval) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE state
    WHEN 'synced' THEN CASE WHEN coalesce(n.synced_retention, synced) >= '0' THEN coalesce(n.synced_retention, synced) END
    WHEN 'degraded' THEN CASE WHEN coalesce(n.degraded_retention, degraded) >= '0' THEN coalesce(n.degraded_retention, degraded) END
    WHEN 'deleted' THEN CASE WHEN coalesce(n.deleted_retention, deleted) >= '0' THEN coalesce(n.deleted_retention, deleted) END
END;

-- The time from which the retention of a settled resource counts. A degraded or deleted resource is kept while it is listed, because otherwise the
-- next listing would sync it as new.
CREATE FUNCTION delta_kept_since(state delta_resource_state, attempted_at timestamptz, synced_at timestamptz, listed_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE state
    WHEN 'degraded' THEN greatest(attempted_at, listed_at)
    WHEN 'deleted' THEN greatest(synced_at, listed_at)
    ELSE synced_at
END;

-- When the latest complete listing began that would have named an object of a shard; null for none. What has no shard, or one that the controller no longer
-- names, may be in any of those that it names, so all of them count.
CREATE FUNCTION delta_listed_all_at(kind text, shard text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN greatest(
    (SELECT s.last_full_listing FROM delta_shard s WHERE s.kind = delta_listed_all_at.kind AND s.shard = ''),
    CASE WHEN EXISTS (SELECT FROM delta_shard s WHERE s.kind = delta_listed_all_at.kind AND s.shard = delta_listed_all_at.shard AND s.gone_at IS NULL)
        THEN (SELECT s.last_full_listing FROM delta_shard s WHERE s.kind = delta_listed_all_at.kind AND s.shard = delta_listed_all_at.shard)
        ELSE (SELECT nullif(min(coalesce(s.last_full_listing, '-infinity')), '-infinity') FROM delta_shard s
            WHERE s.kind = delta_listed_all_at.kind AND s.shard <> '' AND s.gone_at IS NULL)
    END
);

-- Whether a complete listing that began at a time (null: there was none) has left out what was deleted, or listed last, before: NoteListed may have
-- left out a listing within a tenth of the retention, so one that began in that time says nothing.
CREATE FUNCTION delta_is_left_out(listed_all_at timestamptz, since timestamptz, retention interval) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(listed_all_at > since + 0.1 * retention, FALSE);

-- Whether the row of a deleted resource is kept although its retention has passed: its kind has complete listings, and none that began since it was deleted
-- explicitly, or listed last, has succeeded without listing it. Without the row, such a listing would bring it back as if it were new. WakeUnlisted says
-- the same of many rows.
CREATE FUNCTION delta_awaits_listing(kind text, shard text, cause delta_cause, since timestamptz, retention interval) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN cause IS NOT NULL AND cause IN ('work', 'command')
    AND EXISTS (SELECT FROM delta_controller c WHERE c.name = delta_awaits_listing.kind AND c.lists_all)
    AND NOT delta_is_left_out(delta_listed_all_at(kind, shard), since, retention);

-- Whether the current generation of a resource is being worked: by Work, or, while it stays deleted, by Finalize.
CREATE FUNCTION delta_is_worked(state delta_resource_state, finalized boolean, due_at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN state = 'pending' OR (state = 'deleted' AND finalized IS FALSE AND due_at IS NULL);

-- Whether a dispatcher that leases a resource expects a call of Work or Finalize. A settled one that is due may expire.
CREATE FUNCTION delta_wants_slot(state delta_resource_state, finalized boolean, due_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN delta_is_worked(state, finalized, due_at) OR (coalesce(due_at <= now(), FALSE) AND (state <> 'deleted' OR finalized IS FALSE));

-- Whether a due resource may be a member of a batch. It goes on by itself if it is large, or has lost attempts together with others, because
-- it would take those along once more.
CREATE FUNCTION delta_fits_batch(
    state delta_resource_state, finalized boolean, due_at timestamptz, attempt integer, max_attempts integer, size integer, largest integer, most_lost integer
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN size <= largest AND NOT (delta_is_worked(state, finalized, due_at) AND attempt >= least(max_attempts, most_lost));

-- Whether a resource waits for a call of Work or Finalize, which comes when it is due.
CREATE FUNCTION delta_awaits_attempt(state delta_resource_state, finalized boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN state IN ('scheduled', 'expired', 'failed') OR (state = 'deleted' AND finalized IS FALSE);

-- The column finalized of a resource that becomes deleted.
CREATE FUNCTION delta_unfinalized(kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT NOT c.finalizes FROM delta_controller c WHERE c.name = kind AND c.finalizes);

-- Takes slots of keys back from rows that were given one and not claimed, and from dead claims. A row that is locked may be in the middle of its
-- claim, so it keeps its slot; one that was not has none when its claim looks. So what is counted afterwards is never too few. The keys are
-- locked.
-- +goose StatementBegin
CREATE FUNCTION delta_revoke_slots(of_kind text, keys text[], at timestamptz) RETURNS void
LANGUAGE sql VOLATILE
AS $$
    UPDATE delta_resource r SET slot_key = NULL, slot_until = NULL
    WHERE r.id = ANY (ARRAY(
        SELECT d.id FROM delta_resource d
        WHERE d.kind = of_kind AND d.slot_key = ANY (keys) AND coalesce(d.slot_until <= at, TRUE)
          AND (d.claimed_until IS NULL OR (d.claimed_until <= at
            AND NOT EXISTS (SELECT FROM delta_claim c WHERE c.id = d.claim AND c.claimed_until > at)))
        FOR NO KEY UPDATE SKIP LOCKED
    ));
$$;
-- +goose StatementEnd

-- The free room of limit keys. slots is how many more rows may get a slot, null for no limit. If calls have a rate, the nth call from now on may begin
-- first + (n - 1) * apart seconds after at; null if they have none. The calls of a tenth of a second may begin together. given is the number of rows that
-- have a slot but no counted call yet, except those that take much longer than others. queued is whether rows wait.
-- +goose StatementBegin
CREATE FUNCTION delta_key_room(c delta_controller, keys text[], at timestamptz)
RETURNS TABLE (limit_key text, slots bigint, given bigint, queued boolean, first double precision, apart double precision, lead double precision)
LANGUAGE sql STABLE
AS $$
    SELECT k.limit_key, CASE WHEN c.key_concurrency > 0 THEN c.key_concurrency - s.taken END, s.given,
        EXISTS (SELECT FROM delta_resource d WHERE d.kind = c.name AND d.limit_key = k.limit_key
            AND d.queued_at IS NOT NULL AND d.dispatch_at IS NULL AND NOT d.paused),
        CASE WHEN c.key_rate > 0
            THEN extract(epoch FROM greatest(k.next_call_at, at) - at) - (greatest(floor(c.key_rate * 0.1), 1) - 1) / c.key_rate END,
        CASE WHEN c.key_rate > 0 THEN 1 / c.key_rate END, k.lead
    FROM delta_key k
    CROSS JOIN LATERAL (
        SELECT count(*) AS taken, count(*) FILTER (WHERE d.slot_until > at + make_interval(secs => 29 - 3 * k.lead)) AS given
        FROM delta_resource d WHERE d.kind = c.name AND d.slot_key = k.limit_key
    ) s
    WHERE k.kind = c.name AND k.limit_key = ANY (keys);
$$;
-- +goose StatementEnd

-- How many more rows of a key may be given slots because its rate has room for their calls; null where it has none. The calls of those that were
-- given some come before.
CREATE FUNCTION delta_key_calls(first double precision, apart double precision, lead double precision, given bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN apart IS NOT NULL THEN greatest(floor((lead - first + 1e-3) / apart)::bigint + 1 - given, 0) END;

-- When a dispatcher looks at a key next for which rows wait: soon if there is room, and when its rate has room for one more. Where its slots are
-- taken, outcomes wake what waits; where all calls that there is room for were given and have not begun, their claims do. Looks every few seconds
-- are for processes that die before.
CREATE FUNCTION delta_key_looks(
    at timestamptz, slots bigint, given bigint, first double precision, apart double precision, lead double precision, soon interval
)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN slots <= 0 THEN at + interval '5 seconds'
    WHEN delta_key_calls(first, apart, lead, given) > 0 OR apart IS NULL THEN at + soon
    WHEN first + (greatest(floor(0.1 / apart + 1e-6), 1) - 1) * apart > 1e-6 THEN at + make_interval(secs => first + given * apart - lead)
    ELSE at + interval '1 second' END;

-- Gives rows slots of their limit keys. Rows with a full key are returned as queued. If other rows already wait for a key, rows queue with them by
-- priority and age. give is false for a dispatcher that only looks; begins is true right before a claim, when calls are counted against the rate. A
-- call that is at most a quarter of a second early is counted, and returned with the time that its claim has to wait. Rows that are locked, or may not
-- have a call, are skipped.
--
-- A slot lasts 30 seconds, and 20 once its call was counted, so slot_until distinguishes the two, because lead is at most two seconds.
--
-- The kind is compared as an expression, because the planner may otherwise read the whole kind for each id if it believes the table to be empty.
--
-- Keys are locked in order, and the function never waits for a row while it holds them, so it cannot deadlock. Each statement of the function sees
-- everything committed before the locks were taken. A subselect of one statement would count the state at the statement's beginning.
-- +goose StatementBegin
CREATE FUNCTION delta_take_slots(of_kind text, ids bigint[], give boolean, begins boolean, lease interval)
RETURNS TABLE (id bigint, queued boolean, wait interval)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    c delta_controller;
    keys text[];
    at timestamptz;
    rated boolean;
BEGIN
    SELECT * INTO c FROM delta_controller WHERE name = of_kind;
    -- What has a slot, for some seconds at least, needs no more than to be counted against the rate: no key is locked for it.
    IF NOT begins OR coalesce(c.key_rate, 0) = 0 THEN
        ids := ARRAY(
            SELECT i.id FROM unnest(ids) AS i (id)
            CROSS JOIN LATERAL (SELECT r.limit_key, r.slot_key, r.slot_until FROM delta_resource r WHERE r.id = i.id LIMIT 1) d
            WHERE d.limit_key IS NOT NULL AND NOT coalesce(d.slot_key = d.limit_key AND d.slot_until > now() + interval '10 seconds', FALSE)
        );
    END IF;
    keys := ARRAY(
        SELECT DISTINCT d.limit_key FROM unnest(ids) AS i (id)
        CROSS JOIN LATERAL (SELECT r.limit_key FROM delta_resource r WHERE r.id = i.id AND r.kind || '' = of_kind AND r.limit_key IS NOT NULL LIMIT 1) d
    );
    IF cardinality(keys) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO delta_key AS k (kind, limit_key) SELECT of_kind, o.key FROM unnest(keys) AS o (key) ORDER BY o.key COLLATE "C"
    ON CONFLICT (kind, limit_key) DO UPDATE SET used_at = now();
    at := clock_timestamp();
    SELECT * INTO c FROM delta_controller WHERE name = of_kind;
    rated := begins AND coalesce(c.key_rate, 0) > 0;
    PERFORM delta_revoke_slots(of_kind, keys, at);
    RETURN QUERY
    WITH room AS MATERIALIZED (SELECT * FROM delta_key_room(c, keys, at)),
    wanted AS MATERIALIZED (
        SELECT d.id, d.limit_key, d.has, d.slot_until, d.since, row_number() OVER w AS n,
            count(*) FILTER (WHERE d.has) OVER (PARTITION BY d.limit_key) AS have
        FROM (
            SELECT l.* FROM unnest(ids) AS i (id)
            CROSS JOIN LATERAL (
                SELECT r.id, r.limit_key, r.priority, r.slot_until, coalesce(r.slot_key = r.limit_key, FALSE) AS has,
                    coalesce(r.queued_at, r.due_at, r.claimed_until, at) AS since
                FROM delta_resource r
                WHERE r.id = i.id AND r.kind || '' = of_kind AND r.limit_key = ANY (keys) AND NOT r.paused
                  AND (delta_is_worked(r.state, r.finalized, r.due_at) OR (delta_awaits_attempt(r.state, r.finalized) AND r.due_at <= at))
                  AND (r.claimed_until IS NULL OR (r.claimed_until <= at
                    AND NOT EXISTS (SELECT FROM delta_claim o WHERE o.id = r.claim AND o.claimed_until > at)))
                LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED
            ) l
        ) d
        WINDOW w AS (PARTITION BY d.limit_key ORDER BY d.has DESC, d.priority, d.since, d.id)
    ),
    judged AS MATERIALIZED (
        SELECT w.*, CASE WHEN rated THEN greatest(m.first + (w.n - 1) * m.apart, 0) ELSE 0 END AS early,
            CASE WHEN rated THEN m.first + (w.n - 1) * m.apart <= 0.25
                ELSE w.has OR w.n - w.have <= coalesce(delta_key_calls(m.first, m.apart, m.lead, m.given), w.n) END
            AND (w.has OR (NOT m.queued AND w.n - w.have <= coalesce(m.slots, w.n))) AS allowed
        FROM wanted w JOIN room m ON m.limit_key = w.limit_key
    ),
    taken AS (
        UPDATE delta_resource r
        SET slot_key = r.limit_key, slot_until = at + CASE WHEN rated THEN interval '20 seconds' ELSE interval '30 seconds' END,
            queued_at = NULL, dispatch_at = coalesce(r.dispatch_at, at + lease)
        WHERE r.id = ANY (ARRAY(
            SELECT j.id FROM judged j WHERE j.allowed AND give AND (NOT j.has OR rated OR coalesce(j.slot_until < at + interval '10 seconds', TRUE))
        ))
    ),
    waiting AS (
        UPDATE delta_resource r
        SET slot_key = NULL, slot_until = NULL, queued_at = coalesce(r.queued_at, r.due_at, r.claimed_until, at), dispatch_at = NULL
        WHERE r.id = ANY (ARRAY(SELECT j.id FROM judged j WHERE NOT j.allowed))
        RETURNING r.id
    ),
    noted AS (
        UPDATE delta_key k
        SET next_call_at = CASE WHEN m.begun > 0 THEN greatest(k.next_call_at, at) + make_interval(secs => m.begun * m.apart) ELSE k.next_call_at END,
            -- Up faster than down: a row that is early waits for some milliseconds, one that is late leaves a call unused. Each call adds one more
            -- at most, so that rows do not come in swarms.
            lead = CASE WHEN m.took IS NULL THEN k.lead
                WHEN m.took > k.lead THEN least(k.lead + least((m.took - k.lead) / 4, m.begun * m.apart), 2)
                ELSE least(k.lead + (m.took - k.lead) / 16, m.took + 0.2) END,
            wake_at = CASE WHEN m.queued
                THEN least(k.wake_at, delta_key_looks(at, m.slots - m.new, m.given, m.first + m.begun * m.apart, m.apart, m.lead, '0')) ELSE k.wake_at END
        FROM (
            SELECT o.limit_key, o.slots, o.first, o.apart, o.lead, o.queued OR bool_or(NOT j.allowed) AS queued,
                count(*) FILTER (WHERE j.allowed AND NOT j.has AND give) AS new,
                CASE WHEN rated THEN count(*) FILTER (WHERE j.allowed) ELSE 0 END AS begun,
                CASE WHEN rated THEN o.given - count(*) FILTER (WHERE j.has AND j.slot_until > at + make_interval(secs => 29 - 3 * o.lead))
                    ELSE o.given + count(*) FILTER (WHERE j.allowed AND NOT j.has AND give) END AS given,
                avg(extract(epoch FROM at - j.slot_until) + 30) FILTER (WHERE rated AND j.has AND j.slot_until > at + interval '20 seconds') AS took
            FROM judged j JOIN room o ON o.limit_key = j.limit_key
            GROUP BY o.limit_key, o.slots, o.given, o.first, o.apart, o.lead, o.queued
        ) m
        WHERE k.kind = of_kind AND k.limit_key = m.limit_key AND (m.queued OR m.begun > 0)
    )
    SELECT w.id, TRUE, NULL::interval FROM waiting w
    UNION ALL SELECT j.id, FALSE, make_interval(secs => j.early) FROM judged j WHERE j.allowed AND j.early > 0;
END
$$;
-- +goose StatementEnd

-- Gives free slots to waiting rows, and makes a dispatcher take these: for the named keys, otherwise for keys that are due for a look. It returns their
-- number. Rows in snoozed namespaces that are in the way are postponed until the snooze is over, and keep their age. Rows in namespaces that are passed by
-- get none, because they could not use it yet, nor more of a limited one than there is room for: the first of the others among the first thousands do.
-- +goose StatementBegin
CREATE FUNCTION delta_wake_keys(of_kind text, named text[], limited text[], rooms integer[], passed_by text[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    c delta_controller;
    keys text[];
    at timestamptz;
    woken bigint;
    asleep text[];
    stays text[];
    put_off text[];
BEGIN
    IF named IS NULL THEN
        keys := ARRAY(
            SELECT k.limit_key FROM delta_key k WHERE k.kind = of_kind AND k.wake_at <= clock_timestamp()
            ORDER BY k.wake_at LIMIT 256 FOR UPDATE SKIP LOCKED
        );
    ELSE
        keys := ARRAY(SELECT k.limit_key FROM delta_key k WHERE k.kind = of_kind AND k.limit_key = ANY (named) ORDER BY k.limit_key FOR UPDATE);
        -- What waited for the lock is read again: another transaction may have queued rows meanwhile.
        keys := ARRAY(SELECT k.limit_key FROM delta_key k WHERE k.kind = of_kind AND k.limit_key = ANY (keys) AND k.wake_at IS NOT NULL);
    END IF;
    IF cardinality(keys) = 0 THEN
        RETURN 0;
    END IF;
    at := clock_timestamp();
    SELECT * INTO c FROM delta_controller WHERE name = of_kind;
    IF c.paused OR c.snoozed_until > at THEN
        RETURN 0; -- the next dispatcher after that finds the keys
    END IF;
    PERFORM delta_revoke_slots(of_kind, keys, at);
    asleep := delta_snoozed_namespaces();
    -- What ends a snooze waits for this, and finds all that was put off. A namespace that is locked is being changed.
    stays := ARRAY(SELECT n.name FROM delta_namespace n WHERE n.name = ANY (asleep) FOR SHARE SKIP LOCKED);
    WITH room AS MATERIALIZED (
        SELECT m.limit_key, greatest(least(m.slots, delta_key_calls(m.first, m.apart, m.lead, m.given), 256), 0) AS free FROM delta_key_room(c, keys, at) m
    ),
    front AS MATERIALIZED (
        SELECT q.*, m.free FROM room m
        CROSS JOIN LATERAL (
            SELECT d.id, d.limit_key, d.priority, d.queued_at, d.namespace,
                CASE WHEN d.namespace = ANY (asleep) THEN delta_snoozed_until(of_kind, d.namespace, d.id) END AS wakes_at
            FROM delta_resource d
            WHERE d.kind = of_kind AND d.limit_key = m.limit_key AND d.queued_at IS NOT NULL AND d.dispatch_at IS NULL AND NOT d.paused
              AND (coalesce(cardinality(passed_by), 0) = 0 OR (d.namespace <> ALL (passed_by) AND (d.priority, d.queued_at) <= (
                SELECT coalesce(max(last.priority), 5), coalesce(max(last.queued_at), 'infinity') FROM (
                    SELECT o.priority, o.queued_at FROM delta_resource o
                    WHERE o.kind = of_kind AND o.limit_key = m.limit_key AND o.queued_at IS NOT NULL AND o.dispatch_at IS NULL AND NOT o.paused
                    ORDER BY o.priority, o.queued_at OFFSET 4000 LIMIT 1
                ) last
              )))
            ORDER BY d.priority, d.queued_at
            LIMIT CASE WHEN m.free = 0 THEN 0 WHEN cardinality(asleep) > 0 THEN 256 ELSE m.free END
            FOR NO KEY UPDATE SKIP LOCKED
        ) q
    ),
    snoozed AS (
        UPDATE delta_resource r SET dispatch_at = f.wakes_at FROM front f WHERE r.id = f.id AND f.wakes_at > at AND f.namespace = ANY (stays)
        RETURNING r.limit_key
    ),
    given AS (
        UPDATE delta_resource r SET slot_key = r.limit_key, slot_until = at + interval '30 seconds', queued_at = NULL, dispatch_at = at
        FROM (
            SELECT f.id, f.free, f.namespace, row_number() OVER (PARTITION BY f.limit_key ORDER BY f.priority, f.queued_at) AS n,
                row_number() OVER (PARTITION BY f.namespace ORDER BY f.priority, f.queued_at) AS of_namespace
            FROM front f WHERE coalesce(f.wakes_at <= at, TRUE)
        ) o
        WHERE r.id = o.id AND o.n <= o.free AND o.of_namespace <= coalesce(rooms[array_position(limited, o.namespace)], o.of_namespace)
        RETURNING r.id
    )
    SELECT (SELECT count(*) FROM given), ARRAY(SELECT DISTINCT s.limit_key FROM snoozed s) INTO woken, put_off;
    UPDATE delta_key k
    SET wake_at = CASE
        WHEN NOT m.queued THEN NULL
        WHEN k.limit_key = ANY (put_off) THEN at
        ELSE delta_key_looks(at, m.slots, m.given, m.first, m.apart, m.lead,
            CASE WHEN woken > 0 THEN interval '100 milliseconds' ELSE interval '1 second' END) END
    FROM delta_key_room(c, keys, at) m
    WHERE k.kind = of_kind AND k.limit_key = m.limit_key;
    RETURN woken;
END
$$;
-- +goose StatementEnd

-- Those of some resources, each as kind/id, that were never synced; null where there is none. One without a row was never synced. LIMIT 1 keeps it a probe for each,
-- whatever the planner believes of the table.
CREATE FUNCTION delta_unsynced(resources text[]) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT array_agg(i.resource ORDER BY i.n) FROM unnest(resources) WITH ORDINALITY AS i (resource, n)
    WHERE (
        SELECT d.sync_count > 0 FROM delta_resource d
        WHERE d.kind = split_part(i.resource, '/', 1) AND d.object_id = substr(i.resource, strpos(i.resource, '/') + 1)
        LIMIT 1
    ) IS NOT TRUE
);

-- The column awaited_parents of a row that is informed with some parents: what it awaits already, and what it did not have. Those that it has seen synced
-- count as synced for ever.
CREATE FUNCTION delta_awaited_parents(given text[], had text[], awaited text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT array_agg(i.resource ORDER BY i.n) FROM unnest(given) WITH ORDINALITY AS i (resource, n)
    WHERE i.resource <> ALL (coalesce(had, '{}')) OR i.resource = ANY (awaited)
);

-- Whether resources of some kind are touched when one of this kind changes.
CREATE FUNCTION delta_is_touching(parent_kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM delta_controller c WHERE parent_kind = ANY (c.touched_by));

-- Notes that a parent has changed, for each kind of children that are touched by it. The outcome that calls it has locked the parent's row, so no other transaction notes
-- it at the same time, and what clients do to the row of delta_touch is a statement of its own: nothing waits here for longer than that. The time is that of the clock:
-- a transaction of the user's may have begun long before.
-- +goose StatementBegin
CREATE FUNCTION delta_note_touch(parent_kind text, parent_id text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    noted bigint;
BEGIN
    INSERT INTO delta_touch AS t (kind, parent, changed_at)
    SELECT c.name, parent_kind || '/' || parent_id, clock_timestamp() FROM delta_controller c WHERE parent_kind = ANY (c.touched_by) ORDER BY c.name
    ON CONFLICT (kind, parent) DO UPDATE SET changed_at = greatest(excluded.changed_at, t.changed_at), look_at = now();
    GET DIAGNOSTICS noted = ROW_COUNT;
    RETURN noted;
END
$$;
-- +goose StatementEnd

-- Whether a complete listing that began with a snapshot may say that a resource is gone: what was last said of it had ended before. A row that was restored
-- from a dump has the transaction id of another server: it can be seen although no transaction here has reached that id. Only for statements that lock
-- no rows: one that was waited for may have been written by a transaction that began after the statement.
CREATE FUNCTION delta_is_in_reach(written_by xid8, began pg_snapshot) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_visible_in_snapshot(written_by, began) OR written_by >= pg_snapshot_xmax(pg_current_snapshot());

-- Whether a resource is one that degraded because its attempts were used up: it is tried again, slowly, and when an informer lists it.
CREATE FUNCTION delta_heals(state delta_resource_state, cause delta_cause) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN state = 'degraded' AND cause IS DISTINCT FROM 'hopeless';

-- Whether an inform has a settled resource synced again although its object did not change. revive is said by what a program or a person
-- informs, and not by informers.
CREATE FUNCTION delta_comes_back(state delta_resource_state, cause delta_cause, revive boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (revive AND state IN ('degraded', 'deleted', 'unknown')) OR delta_heals(state, cause) OR (state = 'deleted' AND cause = 'unlisted');

-- Whether a resource stays deleted, whatever an inform says of its object: what a complete listing left out is live again when it
-- reappears, and what Work or a command deleted only when it is informed explicitly.
CREATE FUNCTION delta_stays_deleted(state delta_resource_state, cause delta_cause, revive boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN state = 'deleted' AND NOT revive AND cause IS DISTINCT FROM 'unlisted';

-- How long a resource that has just settled waits for its next step: a synced one expires, where its namespace has an expiry, a degraded
-- one that may heal is tried again, where its kind says so (retry), and any other is removed. earlier is the share that is taken off, so
-- that what settled together is not worked together again.
CREATE FUNCTION delta_next_step(
    state delta_resource_state, cause delta_cause, n delta_namespace, expiry interval, retry interval, earlier double precision,
    synced interval, degraded interval, deleted interval
) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN state = 'synced' AND coalesce(n.resource_expiry, expiry) > '0' THEN coalesce(n.resource_expiry, expiry) * (1 - earlier)
    WHEN delta_heals(state, cause) AND retry > '0' THEN retry * (1 - earlier)
    ELSE delta_retention(state, n, synced, degraded, deleted)
END;

-- Whether a hash was computed by the original: over the text of the object, where ours is over its content, which SQL cannot
-- compute from what jsonb kept of it. Such a hash says nothing of an object that is informed now, so the objects themselves
-- are compared, until the row gets a hash of ours with the first change.
CREATE FUNCTION delta_is_rivers(hash bytea) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(hash FOR 6) = 'river:'::bytea;

-- What an installation of the original holds comes over. Its workers are stopped: they know nothing of these tables.
--
-- The original counts attempts over the life of a row, ours within a generation. Each of them that left no error was a
-- sync, so there is one generation for each sync, and one more for what is to be synced.
--
-- A row that rests has no workflow that waits for its end: the dispatcher steps in right when it is due.
-- +goose StatementBegin
DO $$
BEGIN
    IF to_regclass(quote_ident(current_schema()) || '.delta_river_namespace') IS NULL THEN
        RETURN;
    END IF;

    INSERT INTO delta_namespace (
        name, resource_expiry, synced_retention, degraded_retention, deleted_retention, metadata, created_at, updated_at
    )
    SELECT name, make_interval(secs => greatest(expiry_ttl, 0)), NULL, '24 hours', '24 hours', metadata, created_at, updated_at
    FROM delta_river_namespace;

    IF to_regclass(quote_ident(current_schema()) || '.delta_river_controller') IS NOT NULL THEN
        INSERT INTO delta_controller (name, inform_interval, metadata, created_at, updated_at)
        SELECT name, inform_interval, metadata, created_at, updated_at FROM delta_river_controller;
        INSERT INTO delta_shard (kind, shard, last_inform_time) SELECT name, '', last_inform_time FROM delta_river_controller;
    END IF;

    INSERT INTO delta_resource (
        id, generation, synced_generation, sync_count, created_at, attempted_at, synced_at, external_created_at, due_at, dispatch_at,
        state, cause, attempt, max_attempts, kind, object_id, namespace, hash, object, metadata, tags, errors
    ) OVERRIDING SYSTEM VALUE
    SELECT
        o.id,
        n.syncs + CASE WHEN o.state = 'synced' THEN 0 ELSE 1 END,
        n.syncs + CASE WHEN o.state = 'deleted' THEN 1 ELSE 0 END,
        n.syncs,
        o.created_at, o.attempted_at, o.synced_at, o.external_created_at, due.at, due.at,
        -- The original works in a transaction: what can be seen as pending waits to be scheduled again.
        CASE o.state WHEN 'pending' THEN 'scheduled' ELSE o.state::text END::delta_resource_state,
        -- Only Work deletes there (ResourceDelete). So no complete listing brings it back, and its row is kept until one has left it out.
        CASE o.state WHEN 'deleted' THEN 'work' END::delta_cause,
        CASE
            WHEN o.state IN ('scheduled', 'expired') THEN 0
            WHEN o.state IN ('pending', 'failed') THEN least(o.attempt, o.max_attempts - 1)
            ELSE least(o.attempt, o.max_attempts)
        END,
        o.max_attempts, o.kind, o.object_id, o.namespace,
        'river:'::bytea || coalesce(o.hash, ''),
        o.object,
        CASE jsonb_typeof(o.metadata)
            WHEN 'object' THEN o.metadata
            WHEN 'null' THEN '{}'
            ELSE jsonb_build_object('metadata', o.metadata)
        END,
        ARRAY(SELECT t.tag FROM unnest(o.tags) WITH ORDINALITY t (tag, n) WHERE t.tag IS NOT NULL ORDER BY t.n),
        coalesce(e.errors, '{}')
    FROM delta_river_resource o
    LEFT JOIN delta_river_namespace s ON s.name = o.namespace
    CROSS JOIN LATERAL (
        -- Each in the form of AttemptError, whichever program wrote it: one that cannot be read would hide its row.
        SELECT array_agg(jsonb_build_object(
            'at', CASE
                WHEN r.error ->> 'at' ~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d\d:\d\d)$'
                THEN r.error -> 'at' ELSE to_jsonb(coalesce(o.attempted_at, o.created_at)) END,
            'attempt', CASE WHEN r.error ->> 'attempt' ~ '^\d{1,9}$' THEN (r.error ->> 'attempt')::integer ELSE 0 END,
            'error', CASE WHEN jsonb_typeof(r.error -> 'error') = 'string' THEN r.error ->> 'error' ELSE r.error #>> '{}' END,
            'trace', coalesce(r.error ->> 'trace', '')
        ) ORDER BY r.n) AS errors,
        count(*) FILTER (WHERE r.error ->> 'error' NOT LIKE '%by Resource Re-scheduler') AS failures
        FROM unnest(o.errors) WITH ORDINALITY r (error, n)
        WHERE r.error IS NOT NULL
    ) e
    CROSS JOIN LATERAL (
        SELECT greatest(o.attempt - e.failures, CASE WHEN o.state IN ('synced', 'expired') THEN 1 ELSE 0 END) AS syncs
    ) n
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN o.state IN ('scheduled', 'pending', 'failed', 'expired') THEN now()
            WHEN o.state = 'synced' AND s.expiry_ttl > 0 THEN o.synced_at + make_interval(secs => s.expiry_ttl)
            WHEN o.state IN ('synced', 'deleted') THEN o.synced_at + interval '24 hours'
            WHEN o.state = 'degraded' THEN o.attempted_at + interval '24 hours'
        END AS at
    ) due
    ORDER BY o.id;

    -- No number is given twice, not even that of a row which is gone.
    PERFORM setval(pg_get_serial_sequence('delta_resource', 'id'),
        greatest(nextval(pg_get_serial_sequence('delta_river_resource', 'id')), (SELECT max(id) FROM delta_river_resource)));
    ANALYZE delta_resource;
END
$$;
-- +goose StatementEnd

-- +goose Down

-- Where the tables of the original are kept, they get their names back, and what became of their rows since: none is lost.
-- What only ours has goes: generations, priorities, pauses. Where they are not kept, the data go with the tables.
-- +goose StatementBegin
DO $$
BEGIN
    IF to_regclass(quote_ident(current_schema()) || '.delta_river_resource') IS NULL THEN
        RETURN;
    END IF;

    INSERT INTO delta_river_namespace AS o (name, created_at, metadata, updated_at, expiry_ttl)
    SELECT name, created_at, metadata, updated_at, least(greatest(extract(epoch FROM resource_expiry), 0), 2147483647)
    FROM delta_namespace
    ON CONFLICT (name) DO UPDATE
    SET metadata = excluded.metadata, updated_at = excluded.updated_at, expiry_ttl = excluded.expiry_ttl;

    IF to_regclass(quote_ident(current_schema()) || '.delta_river_controller') IS NOT NULL THEN
        INSERT INTO delta_river_controller AS o (name, last_inform_time, inform_interval, created_at, updated_at, metadata)
        SELECT c.name, coalesce(s.last_inform_time, '1970-01-01 00:00:00Z'), c.inform_interval, c.created_at, c.updated_at, c.metadata
        FROM delta_controller c LEFT JOIN delta_shard s ON s.kind = c.name AND s.shard = ''
        ON CONFLICT (name) DO UPDATE
        SET last_inform_time = excluded.last_inform_time, inform_interval = excluded.inform_interval,
            updated_at = excluded.updated_at, metadata = excluded.metadata;
    END IF;

    -- Its own hash where the object is the one that came over, so that it is not synced again there either. A row that
    -- is worked on right now is to be worked again.
    DELETE FROM delta_river_resource o WHERE NOT EXISTS (SELECT FROM delta_resource r WHERE r.id = o.id);
    INSERT INTO delta_river_resource AS o (
        id, state, attempt, max_attempts, attempted_at, created_at, synced_at, external_created_at,
        object_id, kind, namespace, object, hash, metadata, tags, errors
    )
    SELECT
        r.id, CASE r.state WHEN 'pending' THEN 'scheduled' ELSE r.state::text END::delta_river_resource_state,
        least(r.attempt, 32767), r.max_attempts, r.attempted_at, r.created_at,
        CASE WHEN r.state IN ('synced', 'expired', 'deleted') THEN coalesce(r.synced_at, r.attempted_at, r.created_at) END,
        r.external_created_at, r.object_id, r.kind, r.namespace, r.object,
        CASE WHEN delta_is_rivers(r.hash) THEN nullif(substring(r.hash FROM 7), '') ELSE r.hash END,
        r.metadata, r.tags, nullif(r.errors, '{}')
    FROM delta_resource r
    ON CONFLICT (id) DO UPDATE
    SET state = excluded.state, attempt = excluded.attempt, max_attempts = excluded.max_attempts,
        attempted_at = excluded.attempted_at, synced_at = excluded.synced_at, external_created_at = excluded.external_created_at,
        object = excluded.object, hash = excluded.hash, namespace = excluded.namespace,
        metadata = excluded.metadata, tags = excluded.tags, errors = excluded.errors;
    PERFORM setval(pg_get_serial_sequence('delta_river_resource', 'id'),
        greatest(nextval(pg_get_serial_sequence('delta_resource', 'id')), (SELECT max(id) FROM delta_resource)));
END
$$;
-- +goose StatementEnd

DROP FUNCTION delta_is_rivers;
DROP FUNCTION delta_snoozed_until;
DROP FUNCTION delta_snoozed_namespaces;
DROP FUNCTION delta_wakes_at;
DROP FUNCTION delta_next_step;
DROP FUNCTION delta_stays_deleted;
DROP FUNCTION delta_wake_keys;
DROP FUNCTION delta_take_slots;
DROP FUNCTION delta_key_looks;
DROP FUNCTION delta_key_calls;
DROP FUNCTION delta_key_room;
DROP FUNCTION delta_revoke_slots;
DROP FUNCTION delta_unfinalized;
DROP FUNCTION delta_awaits_attempt;
DROP FUNCTION delta_fits_batch;
DROP FUNCTION delta_wants_slot;
DROP FUNCTION delta_is_worked;
DROP FUNCTION delta_awaits_listing;
DROP FUNCTION delta_is_left_out;
DROP FUNCTION delta_listed_all_at;
DROP FUNCTION delta_comes_back;
DROP FUNCTION delta_heals;
DROP FUNCTION delta_is_in_reach;
DROP FUNCTION delta_note_touch;
DROP FUNCTION delta_is_touching;
DROP FUNCTION delta_awaited_parents;
DROP FUNCTION delta_unsynced;
DROP FUNCTION delta_kept_since;
DROP FUNCTION delta_retention;
DROP FUNCTION delta_adopt_changes;
DROP FUNCTION delta_trim_changes;
DROP FUNCTION delta_drop_change_partition;
DROP FUNCTION delta_note_removed_changes;
DROP FUNCTION delta_make_change_partition;
DROP FUNCTION delta_append_change;
DROP FUNCTION delta_order_xid;
DROP FUNCTION delta_logs_changes;
DROP FUNCTION delta_append_error;
DROP FUNCTION delta_late;
DROP FUNCTION delta_kinds;
DROP FUNCTION delta_is_chosen;
DROP FUNCTION delta_latest_error;
DROP FUNCTION delta_hash_id;
DROP FUNCTION delta_channel;
DROP TABLE delta_change_consumer;
DROP TABLE delta_change;
DROP TABLE delta_figure;
DROP TABLE delta_command;
DROP TABLE delta_delivery;
DROP TABLE delta_source;
DROP TABLE delta_inform;
DROP TABLE delta_stale;
DROP TABLE delta_pass;
DROP TABLE delta_refused;
DROP TABLE delta_withheld;
DROP TABLE delta_listing;
DROP TABLE delta_touch;
DROP TABLE delta_claim;
DROP TABLE delta_key;
DROP TABLE delta_resource;
DROP TABLE delta_shard;
DROP TABLE delta_controller;
DROP TABLE delta_namespace;
DROP TYPE delta_cause;
DROP TYPE delta_resource_state;
DROP FUNCTION delta_place;
DROP TABLE delta_installation;

-- +goose StatementBegin
DO $$
DECLARE
    old record;
BEGIN
    FOR old IN
        SELECT t.relname AS on_table, k.conname AS name
        FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
        WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema())) AND k.contype IN ('c', 'n')
            AND t.relname LIKE 'delta\_river\_%' AND k.conname LIKE 'delta\_river\_%'
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I',
            old.on_table, old.name, overlay(old.name PLACING 'delta_' FROM 1 FOR 12));
    END LOOP;
    FOR old IN
        SELECT c.relname AS name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'i' THEN 'INDEX' ELSE 'SEQUENCE' END AS sort
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'i', 'S') AND c.relname LIKE 'delta\_river\_%'
    LOOP
        EXECUTE format('ALTER %s %I RENAME TO %I', old.sort, old.name, overlay(old.name PLACING 'delta_' FROM 1 FOR 12));
    END LOOP;
    IF to_regtype(quote_ident(current_schema()) || '.delta_river_resource_state') IS NOT NULL THEN
        ALTER TYPE delta_river_resource_state RENAME TO delta_resource_state;
    END IF;
END
$$;
-- +goose StatementEnd
