package cdc_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// countAllocated counts the bytes that are allocated until the returned function is called, so each copy of a value
// counts even if it is freed soon.
func countAllocated() func() uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	return func() uint64 {
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
}

// Not parallel, because it measures memory. There are two copies of a value: as received and as delivered.
func TestAVeryLargeValueIsCopiedOnce(t *testing.T) {
	soak.Long(t)
	const size = 64 << 20
	value := fmt.Sprintf(`repeat('0123456789abcdef', %d)`, size/16)
	check := func(t *testing.T, text string, most uint64) {
		t.Helper()
		require.Len(t, text, size)
		require.Equal(t, "0123456789abcdef0123", text[:20])
		require.Equal(t, "cdef", text[size-4:])
		t.Logf("%.2f times its size", float64(most)/size)
		require.Less(t, most, uint64(size*5/2))
	}
	for name, limit := range map[string]int64{"through a file": 1 << 20, "in memory": 512 << 20} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t)
			d.exec(`create table t (id int primary key, v text, n int)`, `alter table t alter v set storage external`)
			s := d.openStream(func(c *cdc.Config) { c.MemoryLimit, c.SpillFolder = limit, t.TempDir() })
			sum := countAllocated()
			d.exec(`insert into t values (1, ` + value + `, 7)`)
			ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
			defer cancel()
			transaction, err := s.Next(ctx)
			require.NoError(t, err)
			for change, err := range transaction.Changes() {
				require.NoError(t, err)
				require.Equal(t, "7", change.New[2].Text)
				check(t, change.New[1].Text, sum())
			}
		})
	}
	t.Run("of a snapshot", func(t *testing.T) {
		d := newDatabase(t)
		d.exec(`create table t (id int primary key, v text, n int)`, `insert into t values (1, `+value+`, 7), (2, 'small', 8)`)
		s := d.createSnapshot()
		sum := countAllocated()
		page, err := s.Page(t.Context(), "public", "t", nil, 10, 1<<30)
		require.NoError(t, err)
		require.Len(t, page.Rows, 2)
		require.Equal(t, "small", page.Rows[1].New[1].Text)
		check(t, page.Rows[0].New[1].Text, sum())
	})
}
