package cdc_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

func TestPublicationsFilterRowsAndColumns(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	if query[int](d, `select current_setting('server_version_num')::int`) < 150000 {
		t.Skip("needs Postgres 15")
	}
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

	s := d.stream()
	d.exec(`insert into "a ""b" values (1, 'x', 'k'), (11, 'x', 'k')`, `insert into other values (1)`, `insert into plain values (1)`)
	_, changes := next(t, s)
	require.Equal(t, []string{`insert a "b [11 k]`}, changes)
	_, changes = next(t, s)
	require.Equal(t, []string{"insert plain [1]"}, changes)

	require.ErrorIs(t, cdc.DropPublication(ctx, d.pool, d.name+"_"), cdc.ErrNotFound)
	injection := cdc.Publication{Name: "injected", Tables: []cdc.PublishedTable{{Table: "plain", Filter: "true); drop table other; --"}}}
	require.Error(t, cdc.CreatePublication(ctx, d.pool, injection))
	require.Equal(t, 1, query[int](d, `select count(*) from other`))
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
