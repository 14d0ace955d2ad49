-- +goose Up

-- One row: who this database is. Every workflow carries the id, so that two databases that meet in one Temporal
-- namespace are told apart. The prefix is fixed by the first client that starts.
CREATE TABLE delta_installation (
    singleton boolean PRIMARY KEY DEFAULT TRUE CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    workflow_id_prefix text,
    -- What object ids are hashed with, where they are: it never leaves the database.
    salt uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO delta_installation DEFAULT VALUES;

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

-- Settings of a namespace, written by the clients that work it. A negative retention keeps rows for ever; an expiry
-- of zero or less never expires.
CREATE TABLE delta_namespace (
    name text PRIMARY KEY,
    resource_expiry interval NOT NULL,
    synced_retention interval NOT NULL,
    degraded_retention interval NOT NULL,
    deleted_retention interval NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT delta_namespace_name_length CHECK (octet_length(name) BETWEEN 1 AND 127)
);

-- One row a kind that has an informer. The cursor moves only after a complete pass.
CREATE TABLE delta_controller (
    name text PRIMARY KEY,
    last_inform_time timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00Z',
    inform_interval interval NOT NULL,
    paused boolean NOT NULL DEFAULT FALSE,
    inform_paused boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT delta_controller_name_length CHECK (octet_length(name) BETWEEN 1 AND 127)
);

-- The truth about each resource, and the outbox of its wake-ups.
--
-- generation counts sync episodes: it rises when the object or its options change, when the resource expires and when
-- it is asked for again. attempt counts the claims within one generation, snoozes those of them that do not count as
-- tries. Every write of a result names generation and attempt, so a result that comes late finds nothing to write to.
-- sync_count counts syncs over the life of the row: the first one created something outside, the others updated it.
--
-- due_at is when the lifecycle takes its next step by itself (null: it rests). dispatch_at is when a dispatcher wakes
-- the workflow if nobody did before: at once for a row just informed, some time after due_at for the others, so that a
-- lost wake-up costs time and never a resource.
CREATE TABLE delta_resource (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 1,
    synced_generation bigint NOT NULL DEFAULT 0,
    sync_count bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    attempted_at timestamptz,
    synced_at timestamptz,
    external_created_at timestamptz,
    due_at timestamptz,
    dispatch_at timestamptz,
    state delta_resource_state NOT NULL DEFAULT 'scheduled',
    attempt integer NOT NULL DEFAULT 0,
    snoozes integer NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL,
    priority smallint NOT NULL DEFAULT 3,
    paused boolean NOT NULL DEFAULT FALSE,
    kind text NOT NULL,
    object_id text NOT NULL,
    namespace text NOT NULL,
    workflow_id text,
    hashed_id text,
    hash bytea NOT NULL,
    object jsonb NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    errors jsonb[] NOT NULL DEFAULT '{}',
    CONSTRAINT delta_resource_kind_object_id_key UNIQUE (kind, object_id),
    CONSTRAINT delta_resource_max_attempts_positive CHECK (max_attempts > 0),
    CONSTRAINT delta_resource_attempt_bounded CHECK (snoozes >= 0 AND attempt - snoozes BETWEEN 0 AND max_attempts),
    CONSTRAINT delta_resource_priority_range CHECK (priority BETWEEN 1 AND 5),
    CONSTRAINT delta_resource_synced_generation_bounded CHECK (synced_generation BETWEEN 0 AND generation),
    CONSTRAINT delta_resource_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object')
);

-- The dispatcher asks, for one kind, for the rows that are due, by priority and oldest first. Rows at rest are not in it.
CREATE INDEX delta_resource_dispatch_idx ON delta_resource (kind, priority, dispatch_at) WHERE dispatch_at IS NOT NULL;

-- Where object ids are kept from Temporal, its workflows name resources by a hash.
CREATE UNIQUE INDEX delta_resource_hashed_id_idx ON delta_resource (kind, hashed_id) WHERE hashed_id IS NOT NULL;

-- What a complete listing has listed so far, so that what it no longer lists can be told at its end. The rows of a pass
-- are gone when it is.
CREATE TABLE delta_listing (
    pass uuid NOT NULL,
    object_id text NOT NULL,
    listed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pass, object_id)
);

-- The channel that this installation's dispatchers listen on. A function, because the planner takes a subquery on a table
-- that was never analyzed for dear, and would plan each inform anew.
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

-- +goose Down
DROP FUNCTION delta_append_error;
DROP FUNCTION delta_hash_id;
DROP FUNCTION delta_channel;
DROP TABLE delta_listing;
DROP TABLE delta_resource;
DROP TABLE delta_controller;
DROP TABLE delta_namespace;
DROP TYPE delta_resource_state;
DROP TABLE delta_installation;
