package cdc_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

func TestAPageBehindAKey(t *testing.T) {
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
	require.Len(t, page.Rows, 2, "one beyond the limit in bytes")
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
		return query[int](d, `select count(*) from pg_replication_slots where slot_name = $1`, d.name) == 0
	}, 20*time.Second, 20*time.Millisecond)
	config.Start = 1
	_, err = cdc.Open(t.Context(), config)
	require.ErrorContains(t, err, "none with Temporary")
}
