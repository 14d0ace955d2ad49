package cdc_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// The configuration itself does not connect, as if its password had expired.
func TestBeforeConnectIsCalledForEachConnection(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key)`)
	right := d.config()
	var asked, refused atomic.Int64
	before := func(_ context.Context, config *pgx.ConnConfig) error {
		if n := asked.Add(1); n == 2 {
			refused.Add(1)
			return errors.New("no token yet")
		}
		config.Host, config.Port = right.Host, right.Port
		return nil
	}
	s := d.openStream(func(c *cdc.Config) { c.Conn.Host, c.Conn.Port, c.BeforeConnect = "127.0.0.1", 1, before })
	require.EqualValues(t, 1, asked.Load())
	require.Eventually(t, func() bool {
		return queryValue[bool](d, `select coalesce(bool_or(pg_terminate_backend(active_pid)), false) from pg_replication_slots where slot_name = $1`, d.name)
	}, cdctest.Patience, 10*time.Millisecond)
	d.exec(`insert into t values (1)`)
	_, changes := nextTransaction(t, s)
	require.Equal(t, []string{"insert t [1]"}, changes)
	require.GreaterOrEqual(t, asked.Load(), int64(3))
	require.EqualValues(t, 1, refused.Load())
	require.NoError(t, cdc.TryConnection(s), "also the probe for a shutdown")
}
