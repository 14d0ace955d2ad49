package messagedb

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The server's functions use unqualified names, so they only work with their schema on the search path. Each statement
// puts it there, calls the function, and puts back what was there before: in one round trip, on any connection, and
// without a trace in a transaction of the caller's. If it fails, Postgres itself undoes the setting with the statement.
//
// Outside a transaction nothing has to be put back: the setting ends with the statement. So there are two of each.
//
// The order is kept by data, not by luck: the path is set from the one that was read; the first argument of the call is
// there only when the path is set, and being volatile it is evaluated with the call, not by the planner; the restoring row
// or column is made from what the call gave. OFFSET 0 keeps the planner from merging the steps. What is on the caller's path
// stays reachable, for conditions and triggers; pg_temp comes last, so that a temporary table named messages is not taken
// for the store.
//
// The path is set inside an argument, and not in a subquery of its own: its nodes in the plan cost the server as much again.

// statements are the texts for one schema. They never change, so each connection prepares each of them once.
type statements struct {
	write, writeNotify, writeMany, writeManyNotify string
	find                                           string
	readStream, readStreams, readCategory, last    string
	version, storeVersion                          string
	id, cardinalID, category, isCategory, hash     string
	lock                                           string
	lag                                            string
	streams, categories, categoryTail              string
	streamStanding, categoryStanding               string
	unfiltered                                     string
}

func newStatements(schema, channel string, inTx bool) statements {
	q := pgx.Identifier{schema}.Sanitize()
	s := statementBuilder{schema: q, path: quoteLiteral(q), channel: quoteLiteral(channel), unfiltered: buildUnfilteredCheck(q + ".messages"), inTx: inTx}
	return statements{
		write:           s.callForValue("write_message", writeArguments, ""),
		writeNotify:     s.callForValue("write_message", writeArguments, "$7"),
		writeMany:       s.writeMany(""),
		writeManyNotify: s.writeMany("$7"),
		find: fmt.Sprintf(`SELECT i.place, m.stream_name, m.position,
	m.stream_name = $1 AND m.type = i.type AND m.data IS NOT DISTINCT FROM i.data::jsonb AND m.metadata IS NOT DISTINCT FROM i.metadata::jsonb
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS i (id, type, data, metadata, place)
JOIN %s.messages m ON m.id = i.id ORDER BY i.place`, q),
		readStream:   s.callForRows("get_stream_messages", ", $2::bigint, $3::bigint, $4::varchar"),
		readStreams:  s.readStreams(),
		readCategory: s.callForRows("get_category_messages", ", $2::bigint, $3::bigint, $4::varchar, $5::bigint, $6::bigint, $7::varchar"),
		last:         s.callForRows("get_last_stream_message", ", $2::varchar"),
		version:      s.callForValue("stream_version", "", ""),
		storeVersion: "SELECT " + q + ".message_store_version()", // it reads nothing
		id:           s.callForValue("id", "", ""),
		cardinalID:   s.callForValue("cardinal_id", "", ""),
		category:     s.callForValue("category", "", ""),
		isCategory:   s.callForValue("is_category", "", ""),
		hash:         s.callForValue("hash_64", "", ""),
		lock:         s.callForValue("acquire_lock", "", ""),
		lag:          s.countLag(),
		streams:      s.listStreams(),
		categories:   s.listCategories(),
		categoryTail: s.categoryTail(),

		streamStanding:   s.streamStanding(),
		categoryStanding: s.categoryStanding(),
		unfiltered:       "SELECT " + s.unfiltered,
	}
}

const writeArguments = ", $2, $3, $4::jsonb, $5::jsonb, $6"

type statementBuilder struct {
	schema, path, channel string
	unfiltered            string // the condition of that name, of the table of messages
	inTx                  bool   // the path must be put back
}

// setPath returns an expression that puts the schema in front of the previous search path. It is never NULL.
func (s statementBuilder) setPath(was string) string {
	return `set_config('search_path', ` + s.path + ` || coalesce(', ' || nullif(` + was + `, ''), '') || ', pg_temp', true)`
}

// setPathFirst returns the first argument of a call, which sets the path.
func (s statementBuilder) setPathFirst(was string) string {
	return "CASE WHEN " + s.setPath(was) + " IS NOT NULL AND " + s.unfiltered + " THEN $1::varchar END"
}

const (
	// current is the search path as it is; before is a query that reads it once.
	current = "current_setting('search_path')"
	before  = "SELECT " + current + " AS was"
)

// restorePath returns a column that restores the path.
func restorePath(was string) string { return "set_config('search_path', " + was + ", true)" }

// notifyListeners returns a column that notifies listeners; the payload is a parameter.
func (s statementBuilder) notifyListeners(payload string) string {
	if payload == "" {
		return ""
	}
	return ", pg_notify(" + s.channel + ", " + payload + ")"
}

// callForValue returns a statement that calls a function for one value.
func (s statementBuilder) callForValue(function, arguments, payload string) string {
	if !s.inTx {
		return fmt.Sprintf("SELECT %s.%s(%s%s)%s", s.schema, function, s.setPathFirst(current), arguments, s.notifyListeners(payload))
	}
	return fmt.Sprintf(`SELECT called.value, %s%s
FROM (SELECT was, %s.%s(%s%s) AS value FROM (%s OFFSET 0) before OFFSET 0) called`,
		restorePath("called.was"), s.notifyListeners(payload), s.schema, function, s.setPathFirst("was"), arguments, before)
}

// writeMany calls write_message for each message in turn. Only the first is held to the expected version: the others
// follow it, because the category is locked by then.
func (s statementBuilder) writeMany(payload string) string {
	columns := "max(called.value)"
	if s.inTx {
		columns += ", " + restorePath("min(called.was)")
	}
	return fmt.Sprintf(`WITH p AS MATERIALIZED (SELECT was, %s AS path FROM (%s OFFSET 0) before)
SELECT %s%s
FROM (SELECT was, %s.write_message(i.id, $1, i.type, i.data::jsonb, i.metadata::jsonb, CASE WHEN place = 1 THEN $2::bigint END) AS value
	FROM p, unnest($3::varchar[], $4::varchar[], $5::text[], $6::text[]) WITH ORDINALITY AS i (id, type, data, metadata, place)
	WHERE path IS NOT NULL AND %s OFFSET 0) called`,
		s.setPath("was"), before, columns, s.notifyListeners(payload), s.schema, s.unfiltered)
}

// callForRows returns a statement that calls a function for messages. In a transaction, its last row is not a message: it restores the path, and is there even
// without messages.
func (s statementBuilder) callForRows(function, arguments string) string {
	const columns = "m.id, m.stream_name, m.type, m.position, m.global_position, m.data, m.metadata, m.time"
	if !s.inTx {
		return fmt.Sprintf("SELECT %s FROM %s.%s(%s%s) m", columns, s.schema, function, s.setPathFirst(current), arguments)
	}
	return fmt.Sprintf(`WITH p AS MATERIALIZED (%s)
SELECT %s
FROM p, LATERAL %s.%s(%s%s) m
UNION ALL
SELECT %s, NULL, '', 0, 0, NULL, NULL, 'epoch'::timestamp FROM p`,
		before, columns, s.schema, function, s.setPathFirst("p.was"), arguments, restorePath("p.was"))
}

// readStreams reads several streams. It reads the table itself: get_stream_messages would run, and plan, one more statement for each stream. The
// condition is in an argument, where it is evaluated in any case.
func (s statementBuilder) readStreams() string {
	return fmt.Sprintf(`SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position, m.data::varchar, m.metadata::varchar, m.time
FROM unnest(CASE WHEN %[2]s THEN $1::text[] END, $2::bigint[]) WITH ORDINALITY AS s (stream_name, first, place),
	LATERAL (SELECT * FROM %[1]s.messages e WHERE e.stream_name = s.stream_name AND e.position >= s.first ORDER BY e.position LIMIT $3) m
ORDER BY s.place, m.position`, s.schema, s.unfiltered)
}

// countLag returns a statement that counts the messages a reader of a category has not read. It need not set the path, because all names are qualified.
func (s statementBuilder) countLag() string {
	return fmt.Sprintf(`SELECT CASE WHEN %[2]s THEN count(*) END, coalesce(max(global_position), 0),
	coalesce(extract(epoch FROM (now() AT TIME ZONE 'utc') - min(time)), 0)::float8
FROM %[1]s.messages
WHERE %[1]s.category(stream_name) = $1 AND global_position > $2 AND ($3::varchar IS NULL OR %[1]s.category(metadata->>'correlationStreamName') = $3)
	AND ($4::bigint IS NULL OR mod(abs(%[1]s.hash_64(split_part(nullif(substr(stream_name, strpos(stream_name, '-') + 1), stream_name), '+', 1))), $5::bigint) = $4)`, s.schema, s.unfiltered)
}

// listStreams lists the streams of a category by their first messages: by the index of categories, in the order of global positions, which any page
// can go on from. The order of names was rejected: the index of streams is in the database's collation, in which the names of one category
// need not be adjacent. A first message after position 0 means that the beginning of its stream was archived.
func (s statementBuilder) listStreams() string {
	return fmt.Sprintf(`SELECT f.stream_name, f.global_position, l.position, l.time, (SELECT count(*) FROM %[1]s.messages c WHERE c.stream_name = f.stream_name)
FROM (SELECT m.stream_name, m.global_position FROM %[1]s.messages m
	WHERE %[1]s.category(m.stream_name) = $1 AND m.global_position > $2
		AND (m.position = 0 OR NOT EXISTS (SELECT FROM %[1]s.messages e WHERE e.stream_name = m.stream_name AND e.position < m.position))
	ORDER BY m.global_position LIMIT $3) f,
	LATERAL (SELECT position, time FROM %[1]s.messages l WHERE l.stream_name = f.stream_name ORDER BY position DESC LIMIT 1) l
ORDER BY f.global_position`, s.schema)
}

// listCategories skips from one category to the next in the index.
func (s statementBuilder) listCategories() string {
	return fmt.Sprintf(`WITH RECURSIVE found (name) AS (
	(SELECT %[1]s.category(stream_name)::text FROM %[1]s.messages ORDER BY %[1]s.category(stream_name) LIMIT 1)
	UNION ALL
	SELECT (SELECT %[1]s.category(m.stream_name)::text FROM %[1]s.messages m WHERE %[1]s.category(m.stream_name) > f.name
		ORDER BY %[1]s.category(m.stream_name) LIMIT 1)
	FROM found f WHERE f.name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL`, s.schema)
}

// categoryTail reads the last messages of a category, backwards.
func (s statementBuilder) categoryTail() string {
	return fmt.Sprintf(`SELECT m.id::varchar, m.stream_name::varchar, m.type::varchar, m.position, m.global_position, m.data::varchar, m.metadata::varchar, m.time
FROM %[1]s.messages m
WHERE %[1]s.category(m.stream_name) = $1 AND ($2::varchar IS NULL OR %[1]s.category(m.metadata->>'correlationStreamName') = $2)
ORDER BY m.global_position DESC LIMIT $3`, s.schema)
}

// quoteLiteral quotes a string for SQL, whatever standard_conforming_strings is.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
