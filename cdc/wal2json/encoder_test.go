package wal2json_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/wal2json"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// scene is a test case: the same transactions go through the plugin, and through pgoutput and the encoder.
type scene struct {
	// before is run before the slots are made, so it is in neither stream.
	before []string
	// keyed are the tables with streamed updates and deletes.
	keyed []string
	// each holds statements that run in their own transactions.
	each []string
	// differs edits the plugin's output where the encoder's is different on purpose.
	differs func(string) string
}

const (
	plugin = "plugin"
	end    = "end of the test"
)

// readFrames returns the frames of the plugin and of the encoder.
func (s scene) readFrames(t *testing.T) (theirs, ours []string) {
	t.Helper()
	d := cdctest.New(t)
	d.Exec(s.before...)
	d.Exec(`CREATE PUBLICATION rows FOR ALL TABLES WITH (publish = 'insert, truncate')`, `CREATE PUBLICATION keyed WITH (publish = 'insert, update, delete, truncate')`)
	for _, table := range s.keyed {
		d.Exec(`ALTER PUBLICATION keyed ADD TABLE ` + table)
	}
	slot := d.Name
	_, err := cdc.CreateSlot(t.Context(), d.Pool, slot, cdc.SlotOptions{})
	require.NoError(t, err)
	d.PluginSlot(slot + plugin)
	for _, statement := range s.each {
		d.Exec(statement)
	}
	d.Exec(`SELECT pg_logical_emit_message(true, '` + end + `', '')`)

	// The plugin prints with the settings of the reading connection.
	conn, err := pgx.ConnectConfig(t.Context(), d.Config())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), `SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'`)
	require.NoError(t, err)
	rows, err := conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL, 'include-lsn', 'on', 'pretty-print', 'off')`, slot+plugin)
	require.NoError(t, err)
	theirs, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)

	stream, err := cdc.Open(t.Context(), cdc.Config{Conn: d.Config(), Slot: slot, Publications: []string{"rows", "keyed"}})
	require.NoError(t, err)
	defer stream.Close()
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	encoder := wal2json.NewEncoder(wal2json.Catalog(d.Pool))
	for len(ours) == 0 || !strings.Contains(ours[len(ours)-1], end) {
		transaction, err := stream.Next(ctx)
		require.NoError(t, err)
		var frame bytes.Buffer
		require.NoError(t, encoder.Encode(ctx, &frame, transaction))
		ours = append(ours, frame.String())
	}
	return theirs, ours
}

// compareFrames requires equal bytes, and returns the frames. Only the plugin writes transactions without changes.
func (s scene) compareFrames(t *testing.T) []string {
	t.Helper()
	theirs, ours := s.readFrames(t)
	var expected []string
	for _, frame := range theirs {
		if s.differs != nil {
			frame = s.differs(frame)
		}
		mine := len(expected) < len(ours) && ours[len(expected)] == frame
		if strings.HasSuffix(frame, `"change":[]}`) && !mine {
			continue
		}
		expected = append(expected, frame)
	}
	for i := range min(len(ours), len(expected)) {
		require.Equal(t, expected[i], ours[i])
	}
	require.Len(t, ours, len(expected))
	for _, frame := range ours {
		require.True(t, json.Valid([]byte(frame)), frame)
	}
	return ours
}

// types is a table with columns of all types.
const types = `create table types (
	id bigint primary key, i2 smallint, i4 integer, o oid, n numeric, n2 numeric(12,3), n0 numeric(5), f4 real, f8 double precision, b boolean,
	t text, vc character varying(20), vcn varchar, c character(6), c1 "char", nm name, by bytea, u uuid, j json, jb jsonb,
	d date, tm time, tm3 time(3), tmz time with time zone, ts timestamp, ts0 timestamp(0), tsz timestamptz, iv interval, ivd interval day to second(2),
	ip inet, ci cidr, ma macaddr, ma8 macaddr8, bi bit(5), vb bit varying(9), m money, p point, li line, ls lseg, bx box, pa path, po polygon, cc circle,
	ia integer[], ta text[][], na numeric(8,2)[], e mood, ea mood[], dm positive, dn nonempty, dby bytes, co pair, coa pair[], hs hstore,
	r4 int4range, rn numrange, rtz tstzrange, mr int4multirange, x xml, tv tsvector, tq tsquery, l pg_lsn, rc regclass, tx xid, jp jsonpath,
	"Odd Type" "Odd Type", "Odds" "Odd Type"[], os other.thing, od "Other"."Thing", oc "char"[], xd xid8)`

var typesBefore = []string{
	`create extension hstore`, `create schema other`, `create schema "Other"`,
	`create type mood as enum ('sad', 'ok', 'it''s "great"')`, `create domain positive as integer check (value > 0)`,
	`create domain nonempty as varchar(9)`, `create domain bytes as bytea`, `create type pair as (a integer, b text)`,
	`create type "Odd Type" as enum ('a b', 'c')`, `create type other.thing as enum ('x')`, `create type "Other"."Thing" as enum ('y')`,
	types,
}

const typesValues = `insert into types values (
	9223372036854775807, -32768, 2147483647, 4294967295, 123456789012345678901234567890.123456789, 12.3, 99999, 1.1, 0.1, true,
	E'tab\t newline\n quote" back\\slash \b\f\r \x01\x1f\x7f é 漢字 😀 </script>', 'vary', '', 'ab', 'z', 'a_name', '\x00ff10', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
	'{"a": [1, "x\"y"],  "b":null}', '{"b": 1.50, "a": "\u00e9"}',
	'2026-02-28', '12:34:56.789', '12:34:56.789', '12:34:56+02', '2026-02-28 12:34:56.123456', '2026-02-28 12:34:56.9', '2026-02-28 12:34:56.5+05:30', '1 year 2 mons 3 days 04:05:06.7', '3 04:05:06.789',
	'192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'1', '1234.56', '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),5>',
	'{1,NULL,3}', '{{a,"b c"},{"q\"u","back\\"}}', '{1.50,NaN}', 'it''s "great"', '{sad,"it''s \"great\""}', 5, 'short', '\xdead', '(1,"x ""y""")', '{"(1,a)","(,)"}', 'a=>1, "b c"=>NULL',
	'[1,5)', '(,1.5]', '[2026-01-01 00:00+00,)', '{[1,3),[5,9)}', '<a b="c">t</a>', 'the fat:2A cat', 'fat & !rat', '16/B374D848', 'pg_class', '7', '$.a[*] ? (@ > 1)',
	'a b', '{"a b",c}', 'x', 'y', '{a,"\""}', '8589934592')`

func TestEveryTypeIsWrittenAsThePluginDoes(t *testing.T) {
	t.Parallel()
	frames := scene{
		before: typesBefore,
		keyed:  []string{"types"},
		each: []string{
			typesValues,
			`insert into types (id) values (1)`,
			`insert into types (id, n, n2, f4, f8, i2, d, ts, tsz, t, by, vb, ia, hs, r4, nm, b) values (-1, 'NaN', 'NaN', 'NaN', '-Infinity', 0, 'infinity', '-infinity', 'infinity', '', '', '', '{}', '', 'empty', '', false)`,
			`insert into types (id, n, f4, f8) values (2, 'Infinity', 'Infinity', 'NaN'), (3, '-Infinity', 1e-30, 1e300), (4, 0.00000000000000000001, 123456789, 0.30000000000000004), (5, -0.0, '-0', 1e15)`,
			`insert into types (id, d, ts, tsz, tmz, iv) values (6, '0044-03-15 BC', '0001-01-01 BC', '20000-01-01+00', '00:00-15:59', '-1 days +00:00:01')`,
			`update types set t = 'new' where id = 1`,
			`update types set id = 100 where id = 1`,
			`delete from types where id = 100`,
			`insert into types (id, t, nm) select 7, string_agg(chr(i), '' order by i), chr(127) || chr(8232) from generate_series(1, 1000) i`,
			`update types set i4 = 1`,
			`alter table types replica identity full`,
			`update types set i2 = 1`,
			`delete from types`,
		},
		// For this type the plugin's is "Other"."Thing", which is not JSON.
		differs: func(frame string) string {
			return strings.ReplaceAll(frame, `"Other"."Thing"`, `"\"Other\".\"Thing\""`)
		},
	}.compareFrames(t)
	require.Greater(t, len(frames), 10)
	require.Contains(t, frames[0], `"integer","oid","numeric","numeric(12,3)","numeric(5,0)","real","double precision"`)
}

func TestNamesAreQuotedAsThePluginDoes(t *testing.T) {
	t.Parallel()
	scene{
		before: []string{
			`create schema "Sch""ema\x"`,
			`create table "Sch""ema\x"."ta'ble ""q"" \ é" ("I d" int, "co""l" text, "new` + "\n" + `line" text, "select" text, primary key ("I d", "co""l"))`,
		},
		keyed: []string{`"Sch""ema\x"."ta'ble ""q"" \ é"`},
		each: []string{
			`insert into "Sch""ema\x"."ta'ble ""q"" \ é" values (1, 'a', 'b', null)`,
			`update "Sch""ema\x"."ta'ble ""q"" \ é" set "select" = '"'`,
			`update "Sch""ema\x"."ta'ble ""q"" \ é" set "co""l" = '\'`,
			`delete from "Sch""ema\x"."ta'ble ""q"" \ é"`,
		},
	}.compareFrames(t)
}

func TestEveryReplicaIdentityIsWrittenAsThePluginDoes(t *testing.T) {
	t.Parallel()
	frames := scene{
		before: []string{
			`create table composite (b text, v text, a int, primary key (a, b))`,
			`create table whole (id int, v text)`, `alter table whole replica identity full`,
			`create table by_index (v text, id int primary key, u int not null)`, `create unique index by_index_u on by_index (u)`, `alter table by_index replica identity using index by_index_u`,
			`create table nothing (id int primary key, v text)`, `alter table nothing replica identity nothing`,
			`create table keyless (id int, v text)`,
			`create table deferred (id int primary key deferrable, v text)`,
			`create table part (id int primary key, v text) partition by range (id)`, `create table part_1 partition of part for values from (0) to (10)`, `create table part_2 partition of part for values from (10) to (20)`,
			`create table parent (id int primary key)`, `create table child (v text, primary key (id)) inherits (parent)`,
		},
		keyed: []string{"composite", "whole", "by_index", "part", "parent"},
		each: []string{
			`insert into composite values ('b', 'v', 1), ('c', null, 2)`, `update composite set v = 'w'`, `update composite set a = 3 where a = 1`, `update composite set b = 'x', a = 4 where a = 2`, `delete from composite`,
			`insert into whole values (1, 'a'), (null, 'b'), (3, null)`, `update whole set v = 'c'`, `update whole set v = 'd' where id is null`, `delete from whole`,
			`insert into by_index values ('a', 1, 10)`, `update by_index set v = 'b'`, `update by_index set id = 2`, `update by_index set u = 20`, `delete from by_index`,
			`insert into nothing values (1, 'a')`, `update nothing set v = 'b'`, `delete from nothing`,
			`insert into keyless values (1, 'a')`, `update keyless set v = 'b'`, `delete from keyless`,
			`insert into deferred values (1, 'a')`, `update deferred set v = 'b'`, `delete from deferred`,
			`do $$ begin insert into keyless values (2, 'a'); update keyless set v = 'b'; insert into whole values (5, 'e'); delete from keyless; end $$`,
			`insert into part values (1, 'a'), (11, 'b')`, `update part set v = 'c'`, `update part set id = 12 where id = 1`, `delete from part`,
			`insert into parent values (1)`, `insert into child values (2, 'c')`, `update parent set id = id + 10`, `delete from parent`,
		},
	}.compareFrames(t)
	require.Greater(t, len(frames), 20)
}

func TestUnchangedLargeValuesAreLeftOutAsThePluginDoes(t *testing.T) {
	t.Parallel()
	// Random, so that it cannot be compressed and is stored out of line.
	const large = `(select string_agg(md5(i::text || random()::text), '') from generate_series(1, 300) i)`
	frames := scene{
		before: []string{
			`create table t (id int primary key, large text, small text, more bytea)`, `insert into t values (1, ` + large + `, 'a', decode(` + large + `, 'hex'))`,
			`create table f (id int primary key, large text, small text)`, `alter table f replica identity full`, `insert into f values (1, ` + large + `, 'a')`,
		},
		keyed: []string{"t", "f"},
		each: []string{
			`update t set small = 'b'`, `update t set large = large || 'x'`, `update t set id = 2`, `insert into t values (3, ` + large + `, 'c', null)`, `delete from t`,
			`update f set small = 'b'`, `delete from f`,
		},
	}.compareFrames(t)
	require.Contains(t, frames[0], `"columnnames":["id","small"]`)
}

func TestChangedTablesAreWrittenAsThePluginDoes(t *testing.T) {
	t.Parallel()
	scene{
		before: []string{
			`create table t (id int primary key, gone text, v varchar(5))`, `create type dropped as enum ('a')`, `create table u (id int primary key, d dropped)`,
		},
		keyed: []string{"t", "u"},
		each: []string{
			`insert into t values (1, 'x', 'v')`,
			`alter table t drop column gone`, `insert into t values (2, 'v')`, `update t set v = 'w'`,
			`alter table t add column n numeric(6,2) default 1.5`, `update t set v = 'y' where id = 1`,
			`alter table t alter column v type text`, `update t set v = 'much longer than five'`,
			`alter table t rename column v to "Renamed"`, `alter table t rename to "T"`, `update "T" set n = 2`,
			`begin; insert into "T" values (9); alter table "T" add column late int; insert into "T" values (10, 'a', 1, 2); commit`,
			`alter table "T" drop constraint t_pkey, add primary key (id, n)`, `update "T" set late = 5`, `delete from "T"`,
			`insert into u values (1, 'a')`, `alter table u drop column d`, `drop type dropped`, `insert into u values (2)`,
			`create table later (id int primary key, v text)`, `insert into later values (1, 'a')`,
		},
	}.compareFrames(t)
}

func TestTransactionsAreWrittenAsThePluginDoes(t *testing.T) {
	t.Parallel()
	frames := scene{
		before: []string{
			`create table a (id int primary key, v text)`, `create table b (id int primary key)`,
			// Large transactions come in pieces, before they commit.
			`do $$ begin execute format('alter database %I set logical_decoding_work_mem = ''64kB''', current_database()); end $$`,
		},
		keyed: []string{"a", "b"},
		each: []string{
			`begin; insert into a values (1, 'x'); insert into b values (1); update a set v = 'y'; delete from b; commit`,
			`begin; insert into a values (2); savepoint s; insert into a values (3); rollback to s; insert into a values (4); commit`,
			`begin; insert into a values (5); rollback`,
			`create table empty (id int)`, // an empty transaction for the plugin
			`truncate a, b`,
			`begin; insert into a values (6); truncate a; insert into a values (7); commit`,
			`select pg_logical_emit_message(true, 'pre"fix', E'con\\tent\n')`,
			`begin; insert into a values (8); select pg_logical_emit_message(true, 'inside', 'x'); insert into a values (9); commit`,
			`select pg_logical_emit_message(false, 'alone', 'with "quotes"')`,
			`insert into a select i, 'row ' || i from generate_series(100, 3100) i`,
			`delete from a`,
			`begin; insert into a select i, 'kept' from generate_series(1, 2000) i; savepoint s; insert into a select i, 'not kept' from generate_series(3001, 6000) i;
				alter table b add column v text; insert into b values (-1, 'not kept'); rollback to s; update a set v = 'changed' where id % 3 = 0; insert into b values (5); commit`,
		},
		// The plugin forgets that a message outside of transactions is the first in its frame, which then is not JSON.
		differs: func(frame string) string { return strings.Replace(frame, `{"change":[,{`, `{"change":[{`, 1) },
	}.compareFrames(t)
	require.Contains(t, frames[2], `"change":[]`, "a truncate")
}
