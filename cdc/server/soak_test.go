package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// follower is a client that stores its rows together with its token, as one with a database would.
type follower struct {
	mu     sync.Mutex
	url    string
	cut    context.CancelFunc
	seen   map[int64]int // how often each row was received
	rows   map[int64]string
	token  string // of the last transaction that was processed
	last   string // the end of that transaction
	faults []string
	// refused counts failed connection attempts.
	refused map[string]int
}

func newFollower(url string) *follower {
	return &follower{url: url, cut: func() {}, seen: map[int64]int{}, rows: map[int64]string{}, refused: map[string]int{}}
}

func (f *follower) addComplaint(format string, args ...any) {
	f.faults = append(f.faults, fmt.Sprintf(format, args...))
}

// beginConnection returns the address for a connection, and a function to cut it.
func (f *follower) beginConnection(ctx context.Context, slot string, withToken bool) (context.Context, context.CancelFunc, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	address := f.url + "/v2/slots/" + slot + "/stream"
	if f.token != "" && withToken {
		address += "?resume=" + f.token
	}
	ctx, f.cut = context.WithCancel(ctx)
	return ctx, f.cut, address
}

// handleRefusal records why there is no connection.
func (f *follower) handleRefusal(response *http.Response) {
	if response == nil || response.Body == nil {
		return
	}
	text, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[fmt.Sprint(response.StatusCode, " ", answer{body: string(text)}.code())]++
}

// followSlot reads a websocket until it is lost.
func (f *follower) followSlot(ctx context.Context, slot string, withToken bool) {
	ctx, cancel, address := f.beginConnection(ctx, slot, withToken)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, address, nil)
	if err != nil {
		f.handleRefusal(response)
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it is lost
	conn.SetReadLimit(64 << 20)
	f.readMessages(withToken, func() ([]byte, error) {
		_, data, err := conn.Read(ctx)
		return data, err
	}, func(ack string) error { return conn.Write(ctx, websocket.MessageText, []byte(ack)) })
}

// readMessages processes messages until the connection ends.
func (f *follower) readMessages(withToken bool, next func() ([]byte, error), say func(ack string) error) {
	var transaction []change
	before := ""
	for {
		data, err := next()
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(data, &m); err != nil || m.Type == "error" && m.Code != "closing" {
			f.mu.Lock()
			f.addComplaint("%s", data)
			f.mu.Unlock()
		}
		if m.Type != "transaction" {
			continue
		}
		transaction = append(transaction, m.Changes...)
		if !m.Final {
			continue
		}
		f.takeMessage(m, transaction, before, withToken)
		transaction, before = nil, m.LSN
		if rand.IntN(3) > 0 && say(`{"lsn":"`+m.LSN+`"}`) != nil {
			return
		}
	}
}

// takeMessage processes a transaction, and checks its position.
func (f *follower) takeMessage(m message, changes []change, before string, withToken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before != "" && position(m.LSN) <= position(before) {
		f.addComplaint("%s came behind %s", m.LSN, before)
	}
	if withToken && f.last != "" && position(m.LSN) <= position(f.last) {
		f.addComplaint("%s came again, although %s was the token", m.LSN, f.last)
	}
	n := -1.0
	for _, c := range changes {
		if now := c.New["n"].(float64); now <= n {
			f.addComplaint("in %s, %v came behind %v", m.LSN, now, n)
		} else {
			n = now
		}
		id := int64(c.New["id"].(float64))
		f.seen[id]++
		f.rows[id] = c.New["v"].(string)
	}
	if position(m.LSN) > position(f.last) {
		f.token, f.last = m.Resume, m.LSN
	}
}

func position(lsn string) (n uint64) {
	high, low, _ := strings.Cut(lsn, "/")
	var h, l uint64
	_, _ = fmt.Sscanf(high, "%X", &h)
	_, _ = fmt.Sscanf(low, "%X", &l)
	return h<<32 | l
}

// Writers run, and the server, the walsender and the client are disconnected at random: nothing is lost, nothing that the token covers is
// sent again, and the order is kept.
func TestSoakOfConnectionsThatAreCut(t *testing.T) {
	long := soak.Time(t, 5*time.Second)
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(`create table event (id int generated always as identity primary key, n int, v text)`)
	h.createSlot(h.s, `"tables":["public.event"],"snapshot":false`)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f := newFollower(h.url)
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			f.followSlot(ctx, h.s, rand.IntN(4) > 0)
		}
	})
	writing, done := context.WithCancel(ctx)
	for range 2 {
		work.Go(func() {
			for writing.Err() == nil {
				_, err := h.Pool.Exec(ctx, `insert into event (n, v) select i, md5(random()::text) from generate_series(1, $1) i`, 1+rand.IntN(2)*rand.IntN(2)*rand.IntN(2)*rand.IntN(1500))
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			}
		})
	}
	kills := map[string]int{}
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(time.Duration(50+rand.IntN(300)) * time.Millisecond) {
		switch rand.IntN(4) {
		case 0:
			kills["client"]++
			f.mu.Lock()
			f.cut()
			f.mu.Unlock()
		case 1:
			kills["server"]++
			h.stop()
			h.startServer(nil)
			f.mu.Lock()
			f.url = h.url
			f.mu.Unlock()
		default:
			kills["walsender"]++
			h.Exec(`select pg_terminate_backend(active_pid) from pg_replication_slots where active and slot_name = '` + h.s + `'`)
		}
	}
	done()
	rows, err := h.Pool.Query(t.Context(), `select id, v from event`)
	require.NoError(t, err)
	written := map[int64]string{}
	for rows.Next() {
		var id int64
		var v string
		require.NoError(t, rows.Scan(&id, &v))
		written[id] = v
	}
	require.NoError(t, rows.Err())
	// The time to catch up depends on the machine, so the test requires progress only.
	for had, patience := 0, time.Now().Add(cdctest.Patience); ; time.Sleep(50 * time.Millisecond) {
		f.mu.Lock()
		has := len(f.rows)
		f.mu.Unlock()
		if has >= len(written) {
			break
		}
		if has > had {
			had, patience = has, time.Now().Add(cdctest.Patience)
		}
		require.True(t, time.Now().Before(patience), "nothing comes any more: %d rows of %d", has, len(written))
	}
	count := cdctest.Query[int](h.Database, `select count(*) from event`)
	stop()
	work.Wait()
	again := 0
	for _, n := range f.seen {
		again += n - 1
	}
	t.Logf("%d rows, %d of them again, %v", len(f.rows), again, kills)
	require.Empty(t, f.faults)
	require.GreaterOrEqual(t, count, len(written))
	for id, v := range written {
		require.Equal(t, v, f.rows[id], "row %d", id)
	}
}
