package server_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// BenchmarkWebsocket reads existing changes through a websocket, and acknowledges each transaction or every hundredth. pg_recvlogical,
// which only prints its input, reads the same. Half of the changes are in transactions of one, half in transactions of a thousand.
func BenchmarkWebsocket(b *testing.B) {
	for _, every := range []int{1, 100} {
		b.Run("ack="+strconv.Itoa(every), func(b *testing.B) { benchmarkWebsocket(b, every) })
	}
}

func benchmarkWebsocket(b *testing.B, every int) {
	const small, large, thousand = 50_000, 50, 1000
	if _, err := exec.LookPath("pg_recvlogical"); err != nil {
		b.Skip("needs pg_recvlogical on the path")
	}
	h := newHarness(b, func(c *server.Config) { c.HeartbeatInterval = time.Minute; c.Stream = cdc.Config{} })
	h.Exec(`create table t (id int primary key, v text, t timestamptz)`)
	bare := h.s + "_bare"
	var read int
	var ours, theirs time.Duration
	for b.Loop() {
		b.StopTimer()
		h.Exec(`truncate t`)
		h.createSlot(h.s, `"tables":["public.t"],"snapshot":false`)
		_, err := cdc.CreateSlot(b.Context(), h.Pool, bare, cdc.SlotOptions{})
		require.NoError(b, err)
		h.Exec(fmt.Sprintf(`do $$ begin for i in 1..%d loop insert into t values (i, md5(i::text), now()); commit; end loop; end $$`, small))
		for i := range large {
			h.Exec(fmt.Sprintf(`insert into t select i, md5(i::text), now() from generate_series(%d, %d) i`, small+1+i*thousand, small+(i+1)*thousand))
		}
		end := cdctest.Query[string](h.Database, `select pg_current_wal_flush_lsn()::text`)
		c := h.Config()
		command := exec.CommandContext(b.Context(), "pg_recvlogical", "-h", c.Host, "-p", strconv.Itoa(int(c.Port)), "-U", c.User, "-d", h.Name, "-w",
			"-S", bare, "--start", "-E", end, "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names="+h.s)
		command.Env = append(command.Environ(), "PGPASSWORD="+c.Password)
		start := time.Now()
		out, err := command.CombinedOutput()
		require.NoError(b, err, "%s", out)
		theirs += time.Since(start)
		b.StartTimer()
		start = time.Now()
		read += h.drainChanges(small+large*thousand, every)
		ours += time.Since(start)
		b.StopTimer()
		h.awaitFree(h.s)
		require.Equal(b, 204, h.request("DELETE", "/v2/slots/"+h.s, "").status)
		require.Eventually(b, func() bool { return cdc.DropSlot(b.Context(), h.Pool, bare) == nil }, 10*time.Second, 20*time.Millisecond)
		b.StartTimer()
	}
	b.ReportMetric(float64(read)/ours.Seconds(), "changes/s")
	b.ReportMetric(float64(read)/theirs.Seconds(), "pg_recvlogical/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "share")
}

// drainChanges reads so many changes, and parses of each only the position to acknowledge.
func (h *harness) drainChanges(changes, every int) (n int) {
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	defer c.conn.CloseNow() //nolint:errcheck // all was read
	kind, changed := []byte(`{"type":"transaction"`), []byte(`{"kind":"`)
	for transactions := 0; n < changes; {
		_, data, err := c.conn.Read(h.t.Context())
		require.NoError(h.t, err)
		if !bytes.HasPrefix(data, kind) {
			continue
		}
		n += bytes.Count(data, changed)
		if !bytes.Contains(data, []byte(`"final":true`)) {
			continue
		}
		if transactions++; transactions%every != 0 && n < changes {
			continue
		}
		_, rest, _ := bytes.Cut(data, []byte(`"lsn":"`))
		lsn, _, _ := bytes.Cut(rest, []byte(`"`))
		require.NoError(h.t, c.conn.Write(h.t.Context(), websocket.MessageText, []byte(`{"lsn":"`+string(lsn)+`"}`)))
	}
	return n
}

// BenchmarkLatency measures how long a transaction takes from its commit to a websocket client, at 500 transactions per second.
func BenchmarkLatency(b *testing.B) {
	h := newHarness(b, func(c *server.Config) { c.HeartbeatInterval = time.Minute; c.Stream = cdc.Config{} })
	h.Exec(`create table t (id int primary key, v text)`)
	h.createSlot(h.s, `"tables":["public.t"],"snapshot":false`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	var took []time.Duration
	id := 0
	for b.Loop() {
		done := make(chan error, 1)
		const transactions = 2000
		go func(first int) {
			ticker := time.NewTicker(2 * time.Millisecond)
			defer ticker.Stop()
			for i := range transactions {
				<-ticker.C
				if _, err := h.Pool.Exec(b.Context(), `insert into t values ($1, 'x')`, first+i); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}(id)
		id += transactions
		for range transactions {
			m := c.readMessage()
			took = append(took, time.Since(m.CommitTime))
			c.sendAck(m.LSN)
		}
		require.NoError(b, <-done)
	}
	slices.Sort(took)
	for _, percent := range []int{50, 95, 99} {
		b.ReportMetric(float64(took[len(took)*percent/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", percent))
	}
}
