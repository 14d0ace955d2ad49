//go:build linux

package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
)

// followEvents reads Server-Sent Events until the connection is lost, and acknowledges with separate requests.
func (f *follower) followEvents(ctx context.Context, slot string) {
	ctx, cancel, address := f.beginConnection(ctx, slot, true)
	defer cancel()
	ask := func(method, address, body string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Accept", "text/event-stream")
		return http.DefaultClient.Do(request)
	}
	response, err := ask("GET", address, "")
	if err != nil {
		return
	}
	if response.StatusCode != http.StatusOK {
		f.handleRefusal(response)
		return
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	f.readMessages(true, func() ([]byte, error) {
		for lines.Scan() {
			if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
				return []byte(data), nil
			}
		}
		return nil, io.EOF
	}, func(ack string) error {
		answer, err := ask("POST", f.url+"/v2/slots/"+slot+"/ack", ack)
		if err == nil && answer.StatusCode != http.StatusOK {
			f.handleRefusal(answer)
		} else if err == nil {
			_ = answer.Body.Close()
		}
		return err
	})
}

// The primary is killed during writes, and its standby is promoted: each client must receive exactly the rows of the new primary. One
// client stays connected and only notices a pause; the others are disconnected and reconnect with their tokens, both while there is no
// primary and afterwards.
func TestClientsResumeAtThePromotedStandby(t *testing.T) {
	t.Parallel()
	cdctest.New(t).NeedsVersion(17)
	primary := cdctest.NewPrivate(t, "wal_level=logical", "synchronized_standby_slots=standby")
	primary.Exec(`create table event (id int primary key, n int, v text)`, `select pg_create_physical_replication_slot('standby', true)`)
	standby := primary.Standby("wal_level=logical", "hot_standby_feedback=on", "primary_slot_name=standby", "sync_replication_slots=on",
		fmt.Sprintf("primary_conninfo=host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.Config().Port))
	// Without target_session_attrs the server connects to the standby before it is promoted, as through a DNS name or a proxy that switches.
	both, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable",
		primary.Config().Port, standby.Config().Port))
	require.NoError(t, err)
	h := &harness{Database: primary.Database, t: t}
	h.startServer(func(c *server.Config) { c.Conn = both })

	slots := []string{"cut", "events", "stays"}
	followers := map[string]*follower{}
	for _, slot := range slots {
		h.createSlot(slot, `"tables":["public.event"],"failover":true`)
		followers[slot] = newFollower(h.url)
	}
	h.createSlot("plain", `"tables":["public.event"],"snapshot":false`)
	plain := func() answer { return h.request("GET", "/v2/slots/plain/stream", "", "Accept", "text/event-stream") }

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	for _, slot := range slots {
		f := followers[slot]
		work.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				if slot == "events" {
					f.followEvents(ctx, slot)
				} else {
					f.followSlot(ctx, slot, true)
				}
			}
		})
	}
	require.Eventually(t, func() bool {
		primary.Exec(`select pg_log_standby_snapshot()`) // the standby can decode from here, once the slots are synchronized
		return cdctest.Query[int](standby.Database, `select count(*) from pg_replication_slots where synced and not temporary`) == len(slots)
	}, cdctest.Patience, 200*time.Millisecond)
	cut := func() {
		for _, slot := range []string{"cut", "events"} {
			followers[slot].mu.Lock()
			followers[slot].cut()
			followers[slot].mu.Unlock()
		}
	}
	const insert = `insert into event values ($1::int, 1, md5($1::int::text))`
	var writer sync.WaitGroup
	writer.Go(func() {
		for id := 1; ; id++ {
			if _, err := primary.Pool.Exec(ctx, insert, id); err != nil {
				return // it was killed
			}
		}
	})
	has := func(rows int) func() bool {
		return func() bool {
			for _, f := range followers {
				f.mu.Lock()
				n := len(f.rows)
				f.mu.Unlock()
				if n < rows {
					return false
				}
			}
			return true
		}
	}
	require.Eventually(t, has(100), cdctest.Patience, time.Millisecond)
	cut()
	require.Eventually(t, has(300), cdctest.Patience, time.Millisecond)
	primary.Stop(syscall.SIGQUIT)
	writer.Wait()
	cut()
	require.Eventually(t, func() bool {
		for _, slot := range []string{"cut", "events"} {
			followers[slot].mu.Lock()
			n := followers[slot].refused["503 database"]
			followers[slot].mu.Unlock()
			if n < 3 {
				return false
			}
		}
		return strings.Contains(h.log.String(), "the server is a standby")
	}, cdctest.Patience, 10*time.Millisecond)
	require.Equal(t, http.StatusServiceUnavailable, h.request("GET", "/v2/tail", "", "Accept", "text/event-stream").status, "a publication is to be made")
	require.Equal(t, "database", plain().code(), "the primary, which has it, may come again")
	standby.Exec(`select pg_promote()`)
	require.Equal(t, "resync_needed", plain().code())
	h.Database = standby.Database
	for id := 1_000_000; id < 1_000_010; id++ {
		_, err := standby.Pool.Exec(ctx, insert, id)
		require.NoError(t, err)
	}
	rows, err := standby.Pool.Query(ctx, `select id, v from event`)
	require.NoError(t, err)
	there := map[int64]string{}
	var id int64
	var v string
	_, err = pgx.ForEachRow(rows, []any{&id, &v}, func() error { there[id] = v; return nil })
	require.NoError(t, err)
	require.Eventually(t, has(len(there)), cdctest.Patience, 10*time.Millisecond)
	stop()
	work.Wait()
	for slot, f := range followers {
		require.Empty(t, f.faults, slot)
		require.True(t, maps.Equal(there, f.rows), slot)
		for id, times := range f.seen {
			require.Equal(t, 1, times, "%s: row %d", slot, id) // a token covered it
		}
		t.Logf("%s: %d rows, refused %v", slot, len(f.rows), f.refused)
		h.awaitFree(slot)
		require.Contains(t, h.request("GET", "/v2/slots/"+slot, "").body, `"failover":true`)
	}
	require.Empty(t, followers["stays"].refused)
	for _, slot := range []string{"cut", "events"} {
		for _, code := range slices.Sorted(maps.Keys(followers[slot].refused)) {
			require.Contains(t, []string{"409 busy", "409 not_streaming", "503 database"}, code, slot)
		}
	}
	require.Equal(t, "snapshot_gone", h.request("GET", "/v2/slots/cut/snapshot/public.event", "").code())
	require.Equal(t, http.StatusNoContent, h.request("DELETE", "/v2/slots/cut", "").status)
	h.createSlot("cut", `"tables":["public.event"],"failover":true`)
}
