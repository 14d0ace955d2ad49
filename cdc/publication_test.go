package cdc_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

func TestPublicationsFilterRowsAndColumns(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.NeedsVersion(15)
	ctx := t.Context()
	d.exec(`create table "a ""b" (id int primary key, "the secret" text, kind text)`, `create table plain (id int primary key)`, `create table other (id int)`)
	p := cdc.Publication{Name: d.name, ViaRoot: true, Tables: []cdc.PublishedTable{
		{Schema: "public", Table: `a "b`, Columns: []string{"id", "kind"}, Filter: `id > 10`},
		{Schema: "public", Table: "plain"},
	}}
	require.NoError(t, cdc.CreatePublication(ctx, d.pool, p))
	require.ErrorIs(t, cdc.CreatePublication(ctx, d.pool, p), cdc.ErrExists)
	found, err := cdc.Publications(ctx, d.pool)
	require.NoError(t, err)
	p.Tables[0].Filter = "(id > 10)"
	require.Equal(t, []cdc.Publication{p}, found)

	s := d.openStream()
	d.exec(`insert into "a ""b" values (1, 'x', 'k'), (11, 'x', 'k')`, `insert into other values (1)`, `insert into plain values (1)`)
	_, changes := nextTransaction(t, s)
	require.Equal(t, []string{`insert a "b [11 k]`}, changes)
	_, changes = nextTransaction(t, s)
	require.Equal(t, []string{"insert plain [1]"}, changes)

	require.ErrorIs(t, cdc.DropPublication(ctx, d.pool, d.name+"_"), cdc.ErrNotFound)
	injection := cdc.Publication{Name: "injected", Tables: []cdc.PublishedTable{{Table: "plain", Filter: "true); drop table other; --"}}}
	require.Error(t, cdc.CreatePublication(ctx, d.pool, injection))
	require.Equal(t, 1, queryValue[int](d, `select count(*) from other`))
	s.Close()
	require.NoError(t, cdc.DropPublication(ctx, d.pool, d.name))
}

func TestTablesAreFoundByPatterns(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	d.exec(`create schema shop`, `create table shop.orders (id int primary key)`, `create table shop.order_line (id int primary key)`,
		`create table public.orders (id int primary key)`, `create table public.secret (id int) partition by list (id)`,
		`create table public.orders_1 partition of public.secret for values in (1)`)
	tables, err := cdc.FindTables(ctx, d.pool, "shop.*", "*.orders*")
	require.NoError(t, err)
	require.Equal(t, []cdc.PublishedTable{{Schema: "public", Table: "orders"}, {Schema: "shop", Table: "order_line"}, {Schema: "shop", Table: "orders"}}, tables)
	require.NoError(t, cdc.CreatePublication(ctx, d.pool, cdc.Publication{Name: "p", Tables: tables}))
	for _, patterns := range [][]string{nil, {"shop.*", "none"}, {"shop.[*"}} {
		_, err = cdc.FindTables(ctx, d.pool, patterns...)
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, cdc.FieldTables, invalid.Field)
	}
}

func TestFeaturesOfPostgres15NeedPostgres15(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	if queryValue[int](d, `select current_setting('server_version_num')::int`) >= 150000 {
		t.Skip("this server has these features")
	}
	d.exec(`create table t (id int primary key)`)
	for _, table := range []cdc.PublishedTable{{Table: "t", Columns: []string{"id"}}, {Table: "t", Filter: "true"}} {
		err := cdc.CreatePublication(t.Context(), d.pool, cdc.Publication{Name: "p", Tables: []cdc.PublishedTable{table}})
		require.ErrorContains(t, err, "Postgres 15 or later")
	}
}

// Postgres 18 streams generated columns if the publication says so.
func TestPublishedGeneratedColumnsAreStreamed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.NeedsVersion(18)
	d.exec(`create table whole (id int primary key, s int generated always as (id + 1) stored, z int default 9)`, `alter table whole replica identity full`,
		`create table listed (id int primary key, s int generated always as (id + 1) stored, z int default 9)`,
		`create table bare (id int primary key, s int generated always as (id + 1) stored, v int generated always as (id + 2) virtual)`,
		`create publication stored for table whole with (publish_generated_columns = stored)`, `create publication lists for table listed (id, s), bare`)
	for _, table := range []string{"whole", "listed", "bare"} {
		d.exec(`insert into ` + table + ` values (1)`)
	}
	publications := []string{"stored", "lists"}
	snapshot, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: d.name, Publications: publications})
	require.NoError(t, err)
	defer snapshot.Close()
	s, err := cdc.Open(t.Context(), d.streamConfig(func(c *cdc.Config) { c.Publications = publications }))
	require.NoError(t, err)
	defer s.Close()
	for table, row := range map[string]string{"whole": "[1 2 9]", "listed": "[1 2]", "bare": "[1]"} {
		for c, err := range snapshot.Rows(t.Context(), "public", table) {
			require.NoError(t, err)
			require.Equal(t, row, fmt.Sprint(c.New), table)
		}
		d.exec(`update ` + table + ` set id = id`)
		_, changes := nextTransaction(t, s)
		require.Equal(t, []string{"update " + table + " " + row}, changes)
		b, err := s.Backfill(t.Context(), cdc.BackfillConfig{Table: table})
		require.NoError(t, err)
		_, changes = nextTransaction(t, s)
		require.Equal(t, []string{"read " + table + " " + row}, changes)
		<-b.Done()
		require.NoError(t, b.Err())
	}
}
