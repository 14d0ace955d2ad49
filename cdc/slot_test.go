package cdc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

func TestSlotsAreListedMeasuredAndDropped(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := t.Context()
	at, err := cdc.CreateSlot(ctx, d.pool, d.name, cdc.SlotOptions{})
	require.NoError(t, err)
	_, err = cdc.CreateSlot(ctx, d.pool, d.name, cdc.SlotOptions{})
	require.ErrorIs(t, err, cdc.ErrExists)
	_, err = cdc.CreateSlot(ctx, d.pool, d.name+"_2", cdc.SlotOptions{})
	require.NoError(t, err)
	d.exec(`select pg_create_logical_replication_slot('`+d.name+`_foreign', 'test_decoding')`,
		`create table t as select i, repeat('x', 100) from generate_series(1, 10000) i`)
	slot := d.lookupSlot()
	require.Equal(t, at, slot.Confirmed)
	require.Equal(t, "pgoutput", slot.Plugin)
	require.Equal(t, "reserved", slot.Status)
	require.False(t, slot.Active)
	require.Greater(t, slot.LagBytes, int64(1<<20))
	require.GreaterOrEqual(t, slot.RetainedBytes, slot.LagBytes)
	require.Nil(t, slot.LagTime, "nothing reads it, so nothing measures it: zero would mean no lag")
	require.Equal(t, queryValue[int](d, `select current_setting('server_version_num')::int`) >= 170000, slot.InactiveTime != nil)
	require.Nil(t, slot.SafeWALBytes, "max_slot_wal_keep_size is not set")
	slots, err := cdc.Slots(ctx, d.pool)
	require.NoError(t, err)
	require.Len(t, slots, 3)

	require.ErrorIs(t, cdc.DropSlot(ctx, d.pool, d.name[:10]), cdc.ErrNotFound, "a part of a name is another name")
	var invalid *cdc.InvalidError
	require.ErrorAs(t, cdc.DropSlot(ctx, d.pool, d.name+"_foreign"), &invalid)
	require.NoError(t, cdc.DropSlot(ctx, d.pool, d.name))
	_, err = cdc.LookupSlot(ctx, d.pool, d.name)
	require.ErrorIs(t, err, cdc.ErrNotFound)
	slots, err = cdc.Slots(ctx, d.pool)
	require.NoError(t, err)
	require.Len(t, slots, 2)

	_, err = cdc.CreateSlot(ctx, d.pool, d.name+"_f", cdc.SlotOptions{Failover: true})
	if queryValue[int](d, `select current_setting('server_version_num')::int`) < 170000 {
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, cdc.FieldFailover, invalid.Field)
		require.ErrorContains(t, err, "Postgres 17 or later")
	} else {
		require.NoError(t, err)
	}
}

// Otherwise the slot would be created once the transactions that it waits for have ended, and keep WAL that nothing reads.
func TestNoSlotIsCreatedAfterItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (i int)`)
	writer, err := d.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = writer.Rollback(context.Background()) }()
	_, err = writer.Exec(t.Context(), `insert into t values (1)`)
	require.NoError(t, err)
	config := cdctest.LoseCancels(d.config())
	for name, connect := range map[string]func(*testing.T) cdc.DB{
		"pool": func(t *testing.T) cdc.DB {
			poolConfig := d.pool.Config()
			poolConfig.ConnConfig, poolConfig.MaxConns = config, 1
			pool, err := pgxpool.NewWithConfig(t.Context(), poolConfig)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			return pool
		},
		"connection": func(t *testing.T) cdc.DB {
			conn, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			return conn
		},
		"transaction": func(t *testing.T) cdc.DB {
			conn, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			tx, err := conn.Begin(t.Context())
			require.NoError(t, err)
			return tx
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, slot := connect(t), d.name+"_"+name
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			go func() {
				_, err := cdc.CreateSlot(ctx, db, slot, cdc.SlotOptions{})
				ended <- err
			}()
			require.Eventually(t, func() bool {
				return queryValue[bool](d, `select exists (select from pg_replication_slots where slot_name = $1)`, slot)
			}, cdctest.Patience, 10*time.Millisecond)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			_, err := cdc.LookupSlot(t.Context(), d.pool, slot)
			require.ErrorIs(t, err, cdc.ErrNotFound, "the transaction that it waits for still runs")
		})
	}
}

// Frequent statuses, which a user wants for fresh figures, say nothing of how long a busy server may take to answer.
func TestAShortStatusIntervalDoesNotShortenTheTimeout(t *testing.T) {
	t.Parallel()
	require.Equal(t, 30*time.Second, cdc.Config{StatusInterval: 100 * time.Millisecond}.WithDefaults().Timeout)
	require.Equal(t, 30*time.Second, cdc.Config{}.WithDefaults().Timeout)
	require.Equal(t, time.Minute, cdc.Config{StatusInterval: 20 * time.Second}.WithDefaults().Timeout)
}

func TestInvalidInputIsReported(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.openStream()
	ctx := t.Context()
	for field, change := range map[cdc.Field]func(*cdc.Config){
		cdc.FieldConn:           func(c *cdc.Config) { c.Conn = nil },
		cdc.FieldSlot:           func(c *cdc.Config) { c.Slot = `x"; drop table t; --` },
		cdc.FieldPublications:   func(c *cdc.Config) { c.Publications = []string{"there is none"} },
		cdc.FieldProtocol:       func(c *cdc.Config) { c.Protocol = 3 },
		cdc.FieldMemoryLimit:    func(c *cdc.Config) { c.MemoryLimit = 1 },
		cdc.FieldStatusInterval: func(c *cdc.Config) { c.StatusInterval = -1 },
		cdc.FieldTimeout:        func(c *cdc.Config) { c.Timeout = time.Millisecond },
		cdc.FieldHeartbeat:      func(c *cdc.Config) { c.Heartbeat = 1 },
		cdc.FieldRetry:          func(c *cdc.Config) { c.LongestRetry = -1 },
		cdc.FieldStart:          func(c *cdc.Config) { c.Start = 0xFFFFFFFF00000000 },
	} {
		_, err := cdc.Open(ctx, d.streamConfig(change))
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid, field)
		require.Equal(t, field, invalid.Field)
	}
	for _, name := range []string{"", "Upper", "with space", "a'b", strings.Repeat("x", 64)} {
		_, err := cdc.CreateSlot(ctx, d.pool, name, cdc.SlotOptions{})
		var invalid *cdc.InvalidError
		require.ErrorAs(t, err, &invalid, name)
	}
	_, err := cdc.Open(ctx, d.streamConfig(func(c *cdc.Config) { c.Slot = "no_such_slot" }))
	require.ErrorIs(t, err, cdc.ErrResyncNeeded)
	d.exec(`select pg_create_logical_replication_slot('` + d.name + `_other', 'test_decoding')`)
	_, err = cdc.Open(ctx, d.streamConfig(func(c *cdc.Config) { c.Slot = d.name + "_other" }))
	require.ErrorContains(t, err, "test_decoding")

	d.exec(`create role ` + d.name + ` login password 'x'`)
	t.Cleanup(func() { administer(t, `drop role `+d.name) })
	_, err = cdc.Open(ctx, d.streamConfig(func(c *cdc.Config) { c.Conn.User, c.Conn.Password = d.name, "x" }))
	require.ErrorContains(t, err, "ALTER ROLE")
}
