package cdc_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// textLines returns rows of the server in the form of [replica.lines].
func textLines(rows [][][]byte) []string {
	lines := make([]string, 0, len(rows))
	for _, r := range rows {
		values := make([]cdc.Value, len(r))
		for i, v := range r {
			if v != nil {
				values[i] = cdc.Value{State: cdc.ValuePresent, Text: string(v)}
			}
		}
		lines = append(lines, formatRow(values))
	}
	slices.Sort(lines)
	return lines
}

// createSnapshot makes a publication of all tables, and a slot with a snapshot, both named like the database.
func (d *database) createSnapshot(change ...func(*cdc.SnapshotConfig)) *cdc.Snapshot {
	d.tb.Helper()
	d.exec(`CREATE PUBLICATION ` + d.name + ` FOR ALL TABLES`)
	config := cdc.SnapshotConfig{Conn: d.config(), Slot: d.name}
	for _, c := range change {
		c(&config)
	}
	s, err := cdc.CreateSnapshot(d.tb.Context(), config)
	require.NoError(d.tb, err)
	d.tb.Cleanup(s.Close)
	return s
}

func TestSnapshotAndStreamEqualTheTable(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	for name, rough := range map[string]bool{"undisturbed": false, "walsender terminated": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			const keys = 4000
			d.fillTable(keys)
			stop := d.startWriters(3, keys, nil)
			snapshot := d.createSnapshot(func(c *cdc.SnapshotConfig) { c.PageSize, c.Connections = 97, 3 })
			replica := newReplica("s", "n")
			for c, err := range snapshot.Rows(t.Context(), "public", "everything") {
				require.NoError(t, err)
				require.Equal(t, cdc.KindRead, c.Kind)
				require.NoError(t, replica.apply(c), "each row is read once")
			}
			snapshot.Close()
			read := len(replica.rows)
			require.Greater(t, read, keys/2)

			stream := d.openStream(func(c *cdc.Config) { c.Start = snapshot.LSN })
			var written int64
			transactions, changes := int64(0), 0
			for ended := false; !ended; {
				ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
				transaction, err := stream.Next(ctx)
				cancel()
				require.NoError(t, err)
				transactions++
				for c, err := range transaction.Changes() {
					require.NoError(t, err)
					require.NoError(t, replica.apply(c), "%+v", c)
					changes++
					ended = ended || c.Kind == cdc.KindMessage && c.Message.Prefix == "end"
				}
				require.NoError(t, stream.Ack(transaction.EndLSN))
				if rough && transactions%200 == 0 {
					d.exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '` + d.name + `' AND active`)
				}
				if written == 0 && transactions >= 700 {
					written = stop()
					d.exec(`SELECT pg_logical_emit_message(true, 'end', '')`)
				}
			}
			require.Equal(t, d.tableLines(), replica.lines())
			require.Greater(t, changes, 700, "there is something to compare")
			if rough {
				require.Eventually(t, func() bool { return stream.Stats().Reconnects > 0 }, cdctest.Patience, time.Millisecond)
			}
			t.Logf("%d rows read, %d of %d transactions with %d changes streamed, %d rows equal", read, transactions, written, changes, len(replica.rows))
		})
	}
}

func TestSnapshotIsReadInTheOrderOfTheKey(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v text)`, `create table empty (id int primary key)`,
		`create table exact (id int primary key)`, `insert into exact select generate_series(1, 20)`,
		`insert into t select i, 'v' || i from generate_series(1, 1005) i`)
	s := d.createSnapshot(func(c *cdc.SnapshotConfig) { c.PageSize, c.Connections = 10, 4 })
	d.exec(`delete from t where id % 2 = 0`, `insert into t values (0, 'late')`)
	// More readers than connections, some of which leave early, mixed with invalid names.
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			n := 0
			for c, err := range s.Rows(t.Context(), "public", "t") {
				n++
				if err != nil || c.New[0].Text != fmt.Sprint(n) {
					t.Errorf("row %d: %v, %v", n, c, err)
					return
				}
				if i%2 == 1 && n == 30*i {
					return
				}
			}
			if n != 1005 {
				t.Errorf("%d rows", n)
			}
		})
		for _, err := range s.Rows(t.Context(), "public", `t"; drop table t; --`) {
			var invalid *cdc.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, cdc.FieldTable, invalid.Field)
		}
	}
	work.Wait()
	for _, err := range s.Rows(t.Context(), "public", "empty") {
		require.NoError(t, err)
		t.Error("there is a row")
	}
	n := 0
	for _, err := range s.Rows(t.Context(), "public", "exact") {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 20, n)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n = 0
	var last error
	for _, err := range s.Rows(ctx, "public", "t") {
		if n++; n == 5 {
			cancel()
		}
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
	s.Close()
	for _, err := range s.Rows(t.Context(), "public", "t") {
		require.ErrorIs(t, err, cdc.ErrClosed)
	}
}

func TestSnapshotReadsPublishedRowsAndColumns(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.NeedsVersion(15)
	d.exec(`create table t (id int primary key, secret text, kind text)`, `create table other (id int primary key)`, `create table keyless (id int)`,
		`insert into t select i, 'x', 'k' from generate_series(1, 25) i`)
	require.NoError(t, cdc.CreatePublication(t.Context(), d.pool, cdc.Publication{Name: "some", Tables: []cdc.PublishedTable{
		{Table: "t", Columns: []string{"id", "kind"}, Filter: "id % 2 = 0"}, {Table: "keyless"},
	}}))
	s := d.createSnapshot(func(c *cdc.SnapshotConfig) { c.Publications, c.PageSize = []string{"some"}, 5 })
	var rows []string
	for c, err := range s.Rows(t.Context(), "public", "t") {
		require.NoError(t, err)
		rows = append(rows, fmt.Sprint(c.New))
	}
	require.Len(t, rows, 12)
	require.Equal(t, "[24 k]", rows[11])
	for _, table := range []string{"other", "keyless", "none"} {
		for _, err := range s.Rows(t.Context(), "public", table) {
			require.ErrorContains(t, err, "public."+table)
		}
	}
	_, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: d.name})
	require.ErrorIs(t, err, cdc.ErrExists)
	for field, config := range map[cdc.Field]cdc.SnapshotConfig{
		cdc.FieldConn:        {Slot: "x"},
		cdc.FieldSlot:        {Conn: d.config()},
		cdc.FieldPageSize:    {Conn: d.config(), Slot: "x", PageSize: -1},
		cdc.FieldConnections: {Conn: d.config(), Slot: "x", Connections: 65},
	} {
		_, err := cdc.CreateSnapshot(t.Context(), config)
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}

// Also for types that pgx does not know, and for domains, for which the server reports the base type.
func TestTypesHaveTheSameNamesInSnapshotsAndStreams(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	columns := queryValue[string](d, `select string_agg(format('c%s %I', oid, typname), ', ' order by oid) from pg_type
		where typnamespace = 'pg_catalog'::regnamespace and oid < 10000 and typtype in ('b', 'r', 'm') and typname !~ '^_?pg_(?!lsn|snapshot)' and typname <> '_cstring'`)
	d.exec(`create domain positive as int check (value > 0)`, `create domain small as positive check (value < 10)`, `create domain words as text[]`,
		`create type mood as enum ('good')`, `create domain good as mood`, `create schema other`, `create type other.mood as (a int)`,
		`create table t (id int primary key, `+columns+`, p positive, s small, w words, m mood[], g good, o other.mood)`)
	snapshot := d.createSnapshot()
	page, err := snapshot.Page(t.Context(), "public", "t", nil, 1, 1)
	require.NoError(t, err)
	d.exec(`insert into t values (1)`)
	stream := d.openStream(func(c *cdc.Config) { c.Start = snapshot.LSN })
	transaction, err := stream.Next(t.Context())
	require.NoError(t, err)
	for c, err := range transaction.Changes() {
		require.NoError(t, err)
		require.Equal(t, c.Relation.Columns, page.Relation.Columns)
		last := c.Relation.Columns[len(c.Relation.Columns)-6:]
		require.Equal(t, []string{"int4", "int4", "_text", "public._mood", "public.mood", "other.mood"},
			[]string{last[0].Type, last[1].Type, last[2].Type, last[3].Type, last[4].Type, last[5].Type})
	}
}

// Postgres hides from such a role when the processes of its own session began.
func TestASnapshotIsReadByARoleThatIsSet(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	role := d.name + "_r"
	d.exec(`create table t (i int primary key)`, `insert into t values (1)`, `create publication p for table t`,
		`create role `+role+` replication`, `grant usage on schema public to `+role, `grant select on t to `+role)
	t.Cleanup(func() { administer(t, "drop role "+role) })
	t.Cleanup(func() { d.exec("drop owned by " + role) })
	config := d.config()
	config.RuntimeParams["role"] = role
	s, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: config, Slot: d.name, Publications: []string{"p"}})
	require.NoError(t, err)
	defer s.Close()
	var texts []string
	for row, err := range s.Rows(t.Context(), "public", "t") {
		require.NoError(t, err)
		texts = append(texts, fmt.Sprint(row.New))
	}
	require.Equal(t, []string{"[1]"}, texts)
}
