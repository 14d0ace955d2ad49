-- A message store that clients of Message DB 1.3.0 work with: the names, parameters, results and errors are those of its
-- documented interface, the code is not its. Names are unqualified, so that all lands in the first schema of search_path.
--
-- The functions that read or write remember that path (SET search_path FROM CURRENT), so callers need not have the schema
-- on theirs. The others are plain SQL over built-in functions, which Postgres writes into the calling statement.

-- +goose Up
CREATE TYPE message AS (
	id varchar, stream_name varchar, type varchar, position bigint, global_position bigint,
	data varchar, metadata varchar, time timestamp
);

CREATE TABLE messages (
	global_position bigserial PRIMARY KEY,
	position bigint NOT NULL,
	time timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
	stream_name text NOT NULL,
	type text NOT NULL,
	data jsonb,
	metadata jsonb,
	id uuid NOT NULL DEFAULT gen_random_uuid()
);

CREATE FUNCTION message_store_version() RETURNS varchar LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT '1.3.0'::varchar
$$;

CREATE FUNCTION category(stream_name varchar) RETURNS varchar LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT split_part($1, '-', 1)::varchar
$$;

CREATE FUNCTION is_category(stream_name varchar) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT coalesce(strpos($1, '-') = 0, true)
$$;

CREATE FUNCTION id(stream_name varchar) RETURNS varchar LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN strpos($1, '-') > 0 THEN substr($1, strpos($1, '-') + 1) END::varchar
$$;

CREATE FUNCTION cardinal_id(stream_name varchar) RETURNS varchar LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN strpos($1, '-') > 0 THEN split_part(substr($1, strpos($1, '-') + 1), '+', 1) END::varchar
$$;

-- The first 64 bits of the md5, as a signed number.
CREATE FUNCTION hash_64(value varchar) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT ('x' || substr(md5($1), 1, 16))::bit(64)::bigint
$$;

CREATE UNIQUE INDEX messages_id ON messages (id);
CREATE UNIQUE INDEX messages_stream ON messages (stream_name, position);
CREATE INDEX messages_category ON messages (category(stream_name), global_position, category(metadata->>'correlationStreamName'));

-- debugging reports whether notices of one kind, get or write, are wanted.
CREATE FUNCTION debugging(kind text) RETURNS boolean LANGUAGE sql STABLE AS $$
	SELECT 'on' IN (current_setting('message_store.debug', true), current_setting('message_store.debug_' || $1, true))
$$;

-- A writer to a category holds its lock until the transaction ends, so its global positions become visible in order.
-- +goose StatementBegin
CREATE FUNCTION acquire_lock(stream_name varchar) RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
	key bigint := hash_64(category(acquire_lock.stream_name));
BEGIN
	PERFORM pg_advisory_xact_lock(key);
	IF debugging('write') THEN
		RAISE NOTICE 'acquire_lock: stream_name %, key %', acquire_lock.stream_name, key;
	END IF;
	RETURN key;
END
$$;
-- +goose StatementEnd

-- It reads what was committed while its caller waited for the lock, so it must not be STABLE.
-- +goose StatementBegin
CREATE FUNCTION stream_version(stream_name varchar) RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
	RETURN (SELECT m.position FROM messages m WHERE m.stream_name = stream_version.stream_name ORDER BY m.position DESC LIMIT 1);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION write_message(
	id varchar, stream_name varchar, type varchar, data jsonb,
	metadata jsonb DEFAULT NULL, expected_version bigint DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
	version bigint;
BEGIN
	PERFORM acquire_lock(write_message.stream_name);
	SELECT m.position INTO version FROM messages m WHERE m.stream_name = write_message.stream_name ORDER BY m.position DESC LIMIT 1;
	version := coalesce(version, -1);
	IF write_message.expected_version <> version THEN
		RAISE EXCEPTION 'Wrong expected version: % (Stream: %, Stream Version: %)',
			write_message.expected_version, write_message.stream_name, version;
	END IF;
	INSERT INTO messages (id, stream_name, position, type, data, metadata)
	VALUES (write_message.id::uuid, write_message.stream_name, version + 1, write_message.type, write_message.data, write_message.metadata);
	IF debugging('write') THEN
		RAISE NOTICE 'write_message: id %, stream_name %, type %, data %, metadata %, expected_version %, position %',
			write_message.id, write_message.stream_name, write_message.type, write_message.data, write_message.metadata,
			write_message.expected_version, version + 1;
	END IF;
	RETURN version + 1;
END
$$;
-- +goose StatementEnd

-- allowed_condition gives the text that a condition adds to a query, and fails where conditions are off.
-- +goose StatementBegin
CREATE FUNCTION allowed_condition(condition varchar) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF condition IS NULL THEN
		RETURN '';
	END IF;
	IF coalesce(current_setting('message_store.sql_condition', true), 'off') = 'off' THEN
		RAISE EXCEPTION 'Retrieval with SQL condition is not activated';
	END IF;
	RETURN ' AND (' || condition || ')';
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION get_stream_messages(
	stream_name varchar, "position" bigint DEFAULT 0, batch_size bigint DEFAULT 1000, condition varchar DEFAULT NULL
) RETURNS SETOF message LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
	command text;
BEGIN
	IF is_category(get_stream_messages.stream_name) THEN
		RAISE EXCEPTION 'Must be a stream name: %', get_stream_messages.stream_name;
	END IF;
	command := 'SELECT id::varchar, stream_name::varchar, type::varchar, position, global_position, data::varchar, metadata::varchar, time
		FROM messages WHERE stream_name = $1 AND position >= $2' || allowed_condition(get_stream_messages.condition)
		|| ' ORDER BY position LIMIT nullif($3, -1)';
	IF debugging('get') THEN
		RAISE NOTICE 'get_stream_messages: stream_name %, position %, batch_size %: %',
			get_stream_messages.stream_name, get_stream_messages.position, get_stream_messages.batch_size, command;
	END IF;
	RETURN QUERY EXECUTE command USING
		get_stream_messages.stream_name, coalesce(get_stream_messages.position, 0), coalesce(get_stream_messages.batch_size, 1000);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION get_category_messages(
	category varchar, "position" bigint DEFAULT 1, batch_size bigint DEFAULT 1000, correlation varchar DEFAULT NULL,
	consumer_group_member bigint DEFAULT NULL, consumer_group_size bigint DEFAULT NULL, condition varchar DEFAULT NULL
) RETURNS SETOF message LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	command text := 'SELECT id::varchar, stream_name::varchar, type::varchar, position, global_position, data::varchar, metadata::varchar, time
		FROM messages WHERE category(stream_name) = $1 AND global_position >= $2';
	trouble text;
BEGIN
	IF NOT is_category(get_category_messages.category) THEN
		RAISE EXCEPTION 'Must be a category: %', get_category_messages.category;
	END IF;
	IF correlation IS NOT NULL THEN
		IF NOT is_category(correlation) THEN
			RAISE EXCEPTION 'Correlation must be a category (Correlation: %)', correlation;
		END IF;
		command := command || ' AND category(metadata->>''correlationStreamName'') = $4';
	END IF;
	IF consumer_group_member IS NOT NULL OR consumer_group_size IS NOT NULL THEN
		trouble := CASE
			WHEN consumer_group_member IS NULL OR consumer_group_size IS NULL THEN 'Consumer group member and size must be specified'
			WHEN consumer_group_size < 1 THEN 'Consumer group size must not be less than 1'
			WHEN consumer_group_member < 0 THEN 'Consumer group member must not be less than 0'
			WHEN consumer_group_member >= consumer_group_size THEN 'Consumer group member must be less than the group size'
		END;
		IF trouble IS NOT NULL THEN
			RAISE EXCEPTION '% (Consumer Group Member: %, Consumer Group Size: %)', trouble, consumer_group_member, consumer_group_size;
		END IF;
		command := command || ' AND mod(abs(hash_64(cardinal_id(stream_name))), $6) = $5';
	END IF;
	command := command || allowed_condition(condition) || ' ORDER BY global_position LIMIT nullif($3, -1)';
	IF debugging('get') THEN
		RAISE NOTICE 'get_category_messages: category %, position %, batch_size %, correlation %, member %, size %: %',
			get_category_messages.category, get_category_messages.position, batch_size, correlation, consumer_group_member,
			consumer_group_size, command;
	END IF;
	-- The size is a smallint in Message DB, too: a larger one is out of range.
	RETURN QUERY EXECUTE command USING
		get_category_messages.category, coalesce(get_category_messages.position, 1), coalesce(batch_size, 1000), correlation,
		consumer_group_member, consumer_group_size::smallint;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION get_last_stream_message(stream_name varchar, type varchar DEFAULT NULL)
RETURNS SETOF message LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
	IF debugging('get') THEN
		RAISE NOTICE 'get_last_stream_message: stream_name %, type %', get_last_stream_message.stream_name, get_last_stream_message.type;
	END IF;
	RETURN QUERY
		SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position, m.data::varchar, m.metadata::varchar, m.time
		FROM messages m
		WHERE m.stream_name = get_last_stream_message.stream_name
			AND (get_last_stream_message.type IS NULL OR m.type = get_last_stream_message.type)
		ORDER BY m.position DESC LIMIT 1;
END
$$;
-- +goose StatementEnd

CREATE VIEW stream_summary AS
	SELECT stream_name, count(*) AS message_count, round(count(*) * 100 / sum(count(*)) OVER (), 2) AS percent
	FROM messages GROUP BY stream_name ORDER BY stream_name;
CREATE VIEW type_summary AS
	SELECT type, count(*) AS message_count, round(count(*) * 100 / sum(count(*)) OVER (), 2) AS percent
	FROM messages GROUP BY type ORDER BY type;
CREATE VIEW stream_type_summary AS
	SELECT stream_name, type, count(*) AS message_count, round(count(*) * 100 / sum(count(*)) OVER (), 2) AS percent
	FROM messages GROUP BY stream_name, type ORDER BY stream_name, type;
CREATE VIEW type_stream_summary AS
	SELECT type, stream_name, count(*) AS message_count, round(count(*) * 100 / sum(count(*)) OVER (), 2) AS percent
	FROM messages GROUP BY type, stream_name ORDER BY type, stream_name;
CREATE VIEW category_type_summary AS
	SELECT category(stream_name) AS category, type, count(*) AS message_count, round(count(*) * 100 / sum(count(*)) OVER (), 2) AS percent
	FROM messages GROUP BY 1, 2 ORDER BY 1, 2;
CREATE VIEW type_category_summary AS
	SELECT type, category(stream_name) AS category, count(*) AS message_count, round(count(*) * 100 / sum(count(*)) OVER (), 2) AS percent
	FROM messages GROUP BY 1, 2 ORDER BY 1, 2;

-- Message DB's installer makes a role message_store that may read and append, no more. Roles belong to the whole server, so
-- it is not made here; where it exists, it is granted the same.
-- +goose StatementBegin
DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'message_store') THEN
		EXECUTE format('GRANT USAGE ON SCHEMA %I TO message_store', current_schema());
		GRANT SELECT, INSERT ON messages TO message_store;
		GRANT USAGE, SELECT ON SEQUENCE messages_global_position_seq TO message_store;
		GRANT SELECT ON stream_summary, type_summary, stream_type_summary, type_stream_summary, category_type_summary,
			type_category_summary TO message_store;
	END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP VIEW stream_summary, type_summary, stream_type_summary, type_stream_summary, category_type_summary, type_category_summary;
DROP FUNCTION get_last_stream_message, get_category_messages, get_stream_messages, allowed_condition, write_message,
	stream_version, acquire_lock, debugging;
DROP TABLE messages;
DROP FUNCTION hash_64, cardinal_id, id, is_category, category, message_store_version;
DROP TYPE message;
