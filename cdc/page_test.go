package cdc_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestPageReturnsTheRowsAfterAKey(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (a int, b text, v text, primary key (b, a))`, `insert into t select i, 'x''"' || i % 3, repeat('v', 100) from generate_series(1, 10) i`)
	s, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: d.name})
	require.NoError(t, err)
	defer s.Close()
	d.exec(`delete from t`)
	var whole, paged []string
	for row, err := range s.Rows(t.Context(), "public", "t") {
		require.NoError(t, err)
		whole = append(whole, row.New[0].Text)
	}
	require.Len(t, whole, 10)
	for after, pages := []string(nil), 0; pages == 0 || after != nil; pages++ {
		page, err := s.Page(t.Context(), "public", "t", after, 3, 1<<20)
		require.NoError(t, err)
		for _, row := range page.Rows {
			paged = append(paged, row.New[0].Text)
		}
		after = page.Next
	}
	require.Equal(t, whole, paged)
	page, err := s.Page(t.Context(), "public", "t", nil, 10, 150)
	require.NoError(t, err)
	require.Len(t, page.Rows, 2, "one row beyond the limit in bytes")
	require.NotNil(t, page.Next)
	var invalid *cdc.InvalidError
	_, err = s.Page(t.Context(), "public", "t", []string{"1"}, 3, 1)
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, cdc.FieldAfter, invalid.Field)
	_, err = s.Page(t.Context(), "public", "t", nil, 0, 1)
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, cdc.FieldPageSize, invalid.Field)
}

func TestATemporarySlotEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`, `create publication `+d.name+` for table t`)
	config := cdc.Config{Conn: d.config(), Slot: d.name, Publications: []string{d.name}, Temporary: true}
	s, err := cdc.Open(t.Context(), config)
	require.NoError(t, err)
	defer s.Close()
	d.exec(`insert into t values (1)`)
	transaction, err := s.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Ack(transaction.EndLSN))
	d.exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '` + d.name + `'`)
	_, err = s.Next(t.Context())
	require.ErrorIs(t, err, cdc.ErrResyncNeeded)
	require.Eventually(t, func() bool {
		return queryValue[int](d, `select count(*) from pg_replication_slots where slot_name = $1`, d.name) == 0
	}, cdctest.Patience, 20*time.Millisecond)
	config.Start = 1
	_, err = cdc.Open(t.Context(), config)
	require.ErrorContains(t, err, "none with Temporary")
}

// A statement that rewrites a table hides its rows from older snapshots, and logs nothing about it.
func TestARewrittenTableFailsTheSnapshot(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table rewritten (id int primary key, v int)`, `insert into rewritten values (1, 1)`,
		`create table parts (id int primary key, v int) partition by range (id)`, `create table part partition of parts default`,
		`insert into parts values (1, 1)`, `create table kept (id int primary key, v int)`, `insert into kept values (1, 1)`)
	s, err := cdc.CreateSnapshot(t.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: d.name})
	require.NoError(t, err)
	defer s.Close()
	d.exec(`alter table rewritten alter v type bigint`, `alter table parts add r float default random()`, `alter table kept add w int default 1`,
		`reindex table kept`)
	for _, table := range []string{"rewritten", "parts"} {
		_, err = s.Page(t.Context(), "public", table, nil, 10, 1000)
		require.ErrorIs(t, err, cdc.ErrSnapshotGone, table)
		rows := 0
		for _, err = range s.Rows(t.Context(), "public", table) {
			rows++
		}
		require.ErrorIs(t, err, cdc.ErrSnapshotGone, table)
		require.Equal(t, 1, rows)
		for _, err = range s.Query(t.Context(), `select v from `+table) {
		}
		require.ErrorIs(t, err, cdc.ErrSnapshotGone, table)
	}
	page, err := s.Page(t.Context(), "public", "kept", nil, 10, 1000)
	require.NoError(t, err)
	require.Len(t, page.Rows, 1)
}
