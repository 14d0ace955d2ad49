package cdc_test

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
)

// BenchmarkStream compares reading existing changes with pg_recvlogical, which only prints them, in changes per second.
// Half of the changes come in transactions of one change, half in transactions of a thousand.
func BenchmarkStream(b *testing.B) {
	const small, large, thousand = 50_000, 50, 1000
	const changes = small + large*thousand
	if _, err := exec.LookPath("pg_recvlogical"); err != nil {
		b.Skip("needs pg_recvlogical on the path")
	}
	d := newDatabase(b)
	d.exec(`create table t (id int primary key, v text, t timestamptz)`, `create publication `+d.name+` for all tables`)
	for b.Loop() {
		b.StopTimer()
		d.exec(`truncate t`)
		for _, slot := range []string{d.name, d.name + "_bare"} {
			_, err := cdc.CreateSlot(b.Context(), d.pool, slot, cdc.SlotOptions{})
			require.NoError(b, err)
		}
		d.exec(fmt.Sprintf(`do $$ begin for i in 1..%d loop insert into t values (i, md5(i::text), now()); commit; end loop; end $$`, small))
		for i := range large {
			d.exec(fmt.Sprintf(`insert into t select i, md5(i::text), now() from generate_series(%d, %d) i`, small+1+i*thousand, small+(i+1)*thousand))
		}
		end := queryValue[string](d, `select pg_current_wal_flush_lsn()::text`)
		c := d.config()
		command := exec.CommandContext(b.Context(), "pg_recvlogical", "-h", c.Host, "-p", strconv.Itoa(int(c.Port)), "-U", c.User, "-d", d.name, "-w",
			"-S", d.name+"_bare", "--start", "-E", end, "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names="+d.name)
		command.Env = append(command.Environ(), "PGPASSWORD="+c.Password)
		start := time.Now()
		out, err := command.CombinedOutput()
		require.NoError(b, err, "%s", out)
		bare := time.Since(start)
		b.StartTimer()

		start = time.Now()
		s, err := cdc.Open(b.Context(), d.streamConfig())
		require.NoError(b, err)
		n := 0
		for n < changes {
			transaction, err := s.Next(b.Context())
			require.NoError(b, err)
			for _, err := range transaction.Changes() {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			require.NoError(b, s.Ack(transaction.EndLSN))
		}
		took := time.Since(start)
		b.StopTimer()
		s.Close()
		require.Eventually(b, func() bool { return cdc.DropSlot(b.Context(), d.pool, d.name) == nil }, 10*time.Second, 20*time.Millisecond)
		require.Eventually(b, func() bool { return cdc.DropSlot(b.Context(), d.pool, d.name+"_bare") == nil }, 10*time.Second, 20*time.Millisecond)
		b.ReportMetric(changes/took.Seconds(), "changes/s")
		b.ReportMetric(changes/bare.Seconds(), "pg_recvlogical/s")
		b.ReportMetric(bare.Seconds()/took.Seconds(), "share")
		b.StartTimer()
	}
}

// BenchmarkSnapshot reads a table page by page, and by COPY.
func BenchmarkSnapshot(b *testing.B) {
	const rows = 300_000
	d := newDatabase(b)
	d.exec(`create table t (id int primary key, v text, t timestamptz)`,
		fmt.Sprintf(`insert into t select i, md5(i::text), now() from generate_series(1, %d) i`, rows), `vacuum analyze t`)
	for b.Loop() {
		b.StopTimer()
		conn, err := d.pool.Acquire(b.Context())
		require.NoError(b, err)
		start := time.Now()
		_, err = conn.Conn().PgConn().CopyTo(b.Context(), io.Discard, `copy t to stdout`)
		require.NoError(b, err)
		bare := time.Since(start)
		conn.Release()
		s, err := cdc.CreateSnapshot(b.Context(), cdc.SnapshotConfig{Conn: d.config(), Slot: d.name})
		require.NoError(b, err)
		b.StartTimer()
		start = time.Now()
		n := 0
		for _, err := range s.Rows(b.Context(), "public", "t") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		took := time.Since(start)
		b.StopTimer()
		require.Equal(b, rows, n)
		s.Close()
		require.NoError(b, cdc.DropSlot(b.Context(), d.pool, d.name))
		b.ReportMetric(rows/took.Seconds(), "rows/s")
		b.ReportMetric(rows/bare.Seconds(), "copy/s")
		b.ReportMetric(bare.Seconds()/took.Seconds(), "share")
		b.StartTimer()
	}
}
