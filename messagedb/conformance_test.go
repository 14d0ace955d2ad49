package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/messagedb"
)

// The tests of this file call the server's functions directly, like any client of Message DB. They are the contract of both kinds of store, down to the texts of
// errors.

// connectRaw returns a connection with the search path that Message DB's documentation recommends.
func connectRaw(t *testing.T, s *store) *pgx.Conn {
	t.Helper()
	hostile.NeedsDirect(t, "its connections have a search_path of their own")
	config := s.config.ConnConfig.Copy()
	config.RuntimeParams["search_path"] = "message_store, public"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// queryCell queries one value as text.
func queryCell(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var value *string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT ("+sql+")::text", args...).Scan(&value), sql)
	if value == nil {
		return "NULL"
	}
	return *value
}

// queryTable queries rows, each as the text of a Postgres record.
func queryTable(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT r::text FROM ("+sql+") r", args...)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err, sql)
	return found
}

func makeID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func TestTheServersErrorsAreMessageDBs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		conn := connectRaw(t, s)
		run(t, conn, `SELECT write_message('`+makeID(1)+`', 'acct-1', 'Opened', '{}')`)
		for _, c := range []struct{ sql, state, message string }{
			{`write_message('` + makeID(2) + `', 'acct-1', 'T', '{}', NULL, 5)`, "P0001", "Wrong expected version: 5 (Stream: acct-1, Stream Version: 0)"},
			{`write_message('` + makeID(2) + `', 'acct-1', 'T', '{}', NULL, -1)`, "P0001", "Wrong expected version: -1 (Stream: acct-1, Stream Version: 0)"},
			{`write_message('` + makeID(2) + `', 'acct-2', 'T', '{}', NULL, 0)`, "P0001", "Wrong expected version: 0 (Stream: acct-2, Stream Version: -1)"},
			{`write_message('` + makeID(1) + `', 'acct-1', 'T', '{}')`, "23505", `duplicate key value violates unique constraint "messages_id"`},
			{`write_message('none', 'acct-1', 'T', '{}')`, "22P02", `invalid input syntax for type uuid: "none"`},
			{`write_message('none', 'acct-1', 'T', '{}', NULL, 7)`, "P0001", "Wrong expected version: 7 (Stream: acct-1, Stream Version: 0)"},
			{`write_message(NULL, 'acct-1', 'T', '{}')`, "23502", `null value in column "id" of relation "messages" violates not-null constraint`},
			{`write_message('` + makeID(2) + `', NULL, 'T', '{}')`, "23502", `null value in column "stream_name" of relation "messages" violates not-null constraint`},
			{`write_message('` + makeID(2) + `', 'acct-1', NULL, '{}')`, "23502", `null value in column "type" of relation "messages" violates not-null constraint`},
			{`get_stream_messages('acct')`, "P0001", "Must be a stream name: acct"},
			{`get_stream_messages('acct-1', 0, -2)`, "2201W", "LIMIT must not be negative"},
			{`get_stream_messages('acct-1', condition => 'true')`, "P0001", "Retrieval with SQL condition is not activated"},
			{`get_category_messages('acct-1')`, "P0001", "Must be a category: acct-1"},
			{`get_category_messages('acct', 1, -2)`, "2201W", "LIMIT must not be negative"},
			{`get_category_messages('acct', correlation => 'a-1')`, "P0001", "Correlation must be a category (Correlation: a-1)"},
			{`get_category_messages('acct', condition => 'true')`, "P0001", "Retrieval with SQL condition is not activated"},
			{`get_category_messages('acct', consumer_group_member => 0)`, "P0001", "Consumer group member and size must be specified (Consumer Group Member: 0, Consumer Group Size: <NULL>)"},
			{`get_category_messages('acct', consumer_group_size => 1)`, "P0001", "Consumer group member and size must be specified (Consumer Group Member: <NULL>, Consumer Group Size: 1)"},
			{`get_category_messages('acct', consumer_group_member => 0, consumer_group_size => 0)`, "P0001", "Consumer group size must not be less than 1 (Consumer Group Member: 0, Consumer Group Size: 0)"},
			{`get_category_messages('acct', consumer_group_member => -1, consumer_group_size => 1)`, "P0001", "Consumer group member must not be less than 0 (Consumer Group Member: -1, Consumer Group Size: 1)"},
			{`get_category_messages('acct', consumer_group_member => 2, consumer_group_size => 2)`, "P0001", "Consumer group member must be less than the group size (Consumer Group Member: 2, Consumer Group Size: 2)"},
			{`get_category_messages('acct', consumer_group_member => 0, consumer_group_size => 32768)`, "22003", "smallint out of range"},
			// Both name the same one of several mistakes.
			{`get_category_messages('a-b', correlation => 'a-1', consumer_group_member => 3)`, "P0001", "Must be a category: a-b"},
			{`get_category_messages('a', correlation => 'a-1', consumer_group_member => 3, condition => 'x')`, "P0001", "Correlation must be a category (Correlation: a-1)"},
			{`get_category_messages('a', consumer_group_member => 3, condition => 'x')`, "P0001", "Consumer group member and size must be specified (Consumer Group Member: 3, Consumer Group Size: <NULL>)"},
			{`get_category_messages('a', consumer_group_member => -1, consumer_group_size => 0)`, "P0001", "Consumer group size must not be less than 1 (Consumer Group Member: -1, Consumer Group Size: 0)"},
		} {
			_, err := conn.Exec(t.Context(), "SELECT "+c.sql)
			var pg *pgconn.PgError
			require.ErrorAs(t, err, &pg, c.sql)
			require.Equal(t, c.state+" "+c.message, pg.Code+" "+pg.Message, c.sql)
		}
		require.Equal(t, "0", queryCell(t, conn, "stream_version('acct-1')"), "none of them wrote anything")
	})
}

func TestTheServersNamesAndHashes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		conn := connectRaw(t, s)
		for sql, want := range map[string]string{
			`hash_64('someStream')`:              "2053039834977696644",
			`hash_64('')`:                        "-3162216497309240828",
			`hash_64(NULL)`:                      "NULL",
			`category('a-b-c+d-e')`:              "a",
			`id('a-b-c+d-e')`:                    "b-c+d-e",
			`cardinal_id('a-b-c+d-e')`:           "b-c",
			`category('account:command+p-1')`:    "account:command+p",
			`category('')`:                       "",
			`category(NULL)`:                     "NULL",
			`category('-x')`:                     "",
			`id('acct')`:                         "NULL",
			`id('acct-')`:                        "",
			`id(NULL)`:                           "NULL",
			`cardinal_id('acct')`:                "NULL",
			`cardinal_id('acct-')`:               "",
			`cardinal_id('acct-+x')`:             "",
			`cardinal_id(NULL)`:                  "NULL",
			`is_category('acct')`:                "true",
			`is_category('')`:                    "true",
			`is_category('acct-')`:               "false",
			`is_category('-')`:                   "false",
			`is_category(NULL)`:                  "true",
			`message_store_version()`:            "1.3.0",
			`acquire_lock('someStream-1')`:       "2053039834977696644",
			`stream_version('none-1')`:           "NULL",
			`pg_typeof(message_store_version())`: "character varying",
			`pg_typeof(hash_64('x'))`:            "bigint",
			`pg_typeof(id('x-1'))`:               "character varying",
		} {
			require.Equal(t, want, queryCell(t, conn, sql), sql)
		}
	})
}

func TestTheServersRowsAreMessageDBs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		conn := connectRaw(t, s)
		// The server validates nothing: names without category, without id, and empty ones are written.
		for i, name := range []string{"", "acct", "acct-", "-x", "acct-1", "acct-1", "acct-1+2"} {
			run(t, conn, `SELECT write_message($1, $2, $3, '{"b": 1, "a": [1.50, null]}', '{"correlationStreamName": "corr-1"}')`,
				makeID(i+1), name, fmt.Sprintf("T%d", i%2))
		}
		run(t, conn, "SELECT write_message($1, 'acct-9', 'T', NULL)", makeID(8))
		const columns = "id, stream_name, type, position, global_position, data, metadata"
		row := func(n int, stream, kind string, position int) string {
			if stream == "" {
				stream = `""`
			}
			return fmt.Sprintf(`(%s,%s,%s,%d,%d,"{""a"": [1.50, null], ""b"": 1}","{""correlationStreamName"": ""corr-1""}")`, makeID(n), stream, kind, position, n)
		}
		null := fmt.Sprintf("(%s,acct-9,T,0,8,,)", makeID(8))
		one, two, last := row(5, "acct-1", "T0", 0), row(6, "acct-1", "T1", 1), row(7, "acct-1+2", "T0", 0)
		alone, empty := row(2, "acct", "T1", 0), row(3, "acct-", "T0", 0)
		for sql, want := range map[string][]string{
			`get_stream_messages('acct-1')`:                        {one, two},
			`get_stream_messages('acct-1', 1)`:                     {two},
			`get_stream_messages('acct-1', 0, 1)`:                  {one},
			`get_stream_messages('acct-1', 0, 0)`:                  nil,
			`get_stream_messages('acct-1', 0, -1)`:                 {one, two},
			`get_stream_messages('acct-1', NULL, NULL)`:            {one, two},
			`get_stream_messages('acct-')`:                         {empty},
			`get_stream_messages('-x')`:                            {row(4, "-x", "T1", 0)},
			`get_category_messages('acct')`:                        {alone, empty, one, two, last, null},
			`get_category_messages('acct', 6)`:                     {two, last, null},
			`get_category_messages('acct', 6, 1)`:                  {two},
			`get_category_messages('acct', 0, -1)`:                 {alone, empty, one, two, last, null},
			`get_category_messages('acct', NULL, NULL)`:            {alone, empty, one, two, last, null},
			`get_category_messages('acct', correlation => 'corr')`: {alone, empty, one, two, last},
			`get_category_messages('acct', correlation => 'cor')`:  nil,
			`get_category_messages('')`:                            {row(1, "", "T0", 0), row(4, "-x", "T1", 0)},
			// A stream without an id reaches no member, even if there is but one.
			`get_category_messages('acct', consumer_group_member => 0, consumer_group_size => 1)`: {empty, one, two, last, null},
			`get_last_stream_message('acct-1')`:                                                   {two},
			`get_last_stream_message('acct-1', 'T0')`:                                             {one},
			`get_last_stream_message('acct-1', 'T9')`:                                             nil,
			`get_last_stream_message('acct')`:                                                     {alone},
			`get_last_stream_message('none-1')`:                                                   nil,
		} {
			require.Equal(t, want, nilIfNone(queryTable(t, conn, "SELECT "+columns+" FROM "+sql)), sql)
		}
		run(t, conn, "SET message_store.sql_condition = 'on'")
		require.Equal(t, []string{one}, queryTable(t, conn, "SELECT "+columns+" FROM get_stream_messages('acct-1', condition => 'type = ''T0''')"))
		require.Equal(t, []string{two}, queryTable(t, conn, "SELECT "+columns+" FROM get_category_messages('acct', condition => 'position = 1')"))
		require.Len(t, queryTable(t, conn, "SELECT "+columns+" FROM get_category_messages('acct', condition => 'true) or (true')"), 8,
			"a condition is no security boundary")
		run(t, conn, "SET message_store.sql_condition = 'off'")
		_, err := conn.Exec(t.Context(), "SELECT get_stream_messages('acct-1', condition => 'true')")
		require.ErrorContains(t, err, "not activated")
	})
}

func nilIfNone(rows []string) []string {
	if len(rows) == 0 {
		return nil
	}
	return rows
}

func TestTheServersViewsAreMessageDBs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		conn := connectRaw(t, s)
		for _, view := range messagedb.Views() {
			require.Empty(t, queryTable(t, conn, "SELECT * FROM "+string(view)), "an empty store")
		}
		for i, stream := range []string{"b-1", "a-2", "a-1", "a-1", "a-1", "b-1", "b-1"} {
			run(t, conn, "SELECT write_message($1, $2, $3, '{}')", makeID(i+1), stream, fmt.Sprintf("T%d", i%2))
		}
		for view, want := range map[string][]string{
			"stream_summary":        {"(a-1,3,42.86)", "(a-2,1,14.29)", "(b-1,3,42.86)"},
			"type_summary":          {"(T0,4,57.14)", "(T1,3,42.86)"},
			"stream_type_summary":   {"(a-1,T0,2,28.57)", "(a-1,T1,1,14.29)", "(a-2,T1,1,14.29)", "(b-1,T0,2,28.57)", "(b-1,T1,1,14.29)"},
			"type_stream_summary":   {"(T0,a-1,2,28.57)", "(T0,b-1,2,28.57)", "(T1,a-1,1,14.29)", "(T1,a-2,1,14.29)", "(T1,b-1,1,14.29)"},
			"category_type_summary": {"(a,T0,2,28.57)", "(a,T1,2,28.57)", "(b,T0,2,28.57)", "(b,T1,1,14.29)"},
			"type_category_summary": {"(T0,a,2,28.57)", "(T0,b,2,28.57)", "(T1,a,2,28.57)", "(T1,b,1,14.29)"},
		} {
			require.Equal(t, want, queryTable(t, conn, "SELECT * FROM "+view), view)
		}
		require.Equal(t, "bigint numeric", queryCell(t, conn, "SELECT pg_typeof(message_count) || ' ' || pg_typeof(percent) FROM type_summary LIMIT 1"))
	})
}

// The part of the catalogue that clients use: signatures, defaults, columns, constraints.
func TestTheServersSignaturesAreMessageDBs(t *testing.T) {
	t.Parallel()
	catalogue := func(s *store) []string {
		conn := connectRaw(t, s)
		found := queryTable(t, conn, `SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
			FROM pg_proc p WHERE pronamespace = 'message_store'::regnamespace AND proname NOT IN ('debugging', 'allowed_condition') ORDER BY 1`)
		found = append(found, queryTable(t, conn, `SELECT c.relname, c.relkind, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
			FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
			WHERE c.relnamespace = 'message_store'::regnamespace AND a.attnum > 0 AND c.relname NOT LIKE 'messagedb_goose%'
			ORDER BY 1, 3`)...)
		return append(found, queryTable(t, conn, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'message_store' AND indexname NOT LIKE 'messagedb_goose%' ORDER BY 1")...)
	}
	official, ours := newStoreOf(t, "official"), newStoreOf(t, "migrations")
	want := catalogue(official)
	require.Greater(t, len(want), 60)
	require.Equal(t, want, catalogue(ours))
}

func TestTheRoleMayReadAndAppendNoMore(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		conn := connectRaw(t, s)
		run(t, conn, "SET ROLE message_store")
		run(t, conn, "SELECT write_message($1, 'a-1', 'T', '{}')", makeID(1))
		require.Len(t, queryTable(t, conn, "SELECT * FROM get_category_messages('a')"), 1)
		require.Len(t, queryTable(t, conn, "SELECT * FROM stream_summary"), 1)
		for _, sql := range []string{"UPDATE messages SET type = 'X'", "DELETE FROM messages", "TRUNCATE messages", "DROP TABLE messages"} {
			_, err := conn.Exec(t.Context(), sql)
			var pg *pgconn.PgError
			require.True(t, errors.As(err, &pg) && pg.Code == "42501", "%s: %v", sql, err)
		}
	})
}

func run(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}
