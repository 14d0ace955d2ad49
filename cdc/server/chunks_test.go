package server_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
)

// collectChunks reads a transaction, and the values sent in chunks before it. No message may be larger than most.
func (c *client) collectChunks(most int) (all []change, values map[int]string, messages int) {
	c.h.t.Helper()
	values = map[int]string{}
	chunks := map[int]int{}
	for {
		m := c.readMessage()
		messages++
		require.LessOrEqual(c.h.t, m.bytes, most)
		if m.Type == "value" {
			require.Equal(c.h.t, chunks[m.Value], m.Chunk)
			chunks[m.Value]++
			values[m.Value] += m.Text
			continue
		}
		require.Equal(c.h.t, "transaction", m.Type, m.Error)
		if all = append(all, m.Changes...); m.Final {
			c.sendAck(m.LSN)
			return all, values, messages
		}
	}
}

func TestNoMessageExceedsTheClientsLimit(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	h := newHarness(t, nil)
	h.Exec(`create table doc (id int primary key, title text, body text, n int)`, `create table whole (id int primary key, body text)`,
		`alter table whole replica identity full`)
	h.createSlot(h.s, `"tables":["public.*"],"snapshot":false`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream?large=chunks&max_message=65536")
	body := func(table string, id int) string {
		return cdctest.Query[string](h.Database, fmt.Sprintf(`select body from %s where id = %d`, table, id))
	}
	h.Exec(`insert into doc values (1, 'small', 'a', 1), (2, 'large', ` + odd + `, 2), (3, repeat('"', 20000), repeat('b', 50000), 3)`)
	all, values, _ := c.collectChunks(most)
	require.Len(t, all, 3)
	require.Equal(t, "a", all[0].New["body"])
	require.Empty(t, all[0].Chunked)
	require.Len(t, all[1].Chunked, 1)
	require.Equal(t, "body", all[1].Chunked[0].Column)
	require.Equal(t, "new", all[1].Chunked[0].Row)
	require.NotContains(t, all[1].New, "body")
	require.EqualValues(t, 2, all[1].New["n"])
	require.Equal(t, body("doc", 2), values[all[1].Chunked[0].Value])
	require.Equal(t, body("doc", 3), values[all[2].Chunked[0].Value])
	require.Len(t, all[2].New["title"], 20000, "the other value has room")

	h.Exec(`insert into doc select i, 'some', repeat('"', 2000), i from generate_series(10, 109) i`)
	all, values, messages := c.collectChunks(most)
	require.Len(t, all, 100)
	require.Empty(t, values)
	require.Greater(t, messages, 5)
	require.Less(t, messages, 20, "each has as much as fits")

	h.Exec(`insert into whole values (1, ` + odd + `)`)
	c.collectChunks(most)
	before := body("whole", 1)
	h.Exec(`update whole set body = reverse(body)`)
	all, values, _ = c.collectChunks(most)
	rows := map[string]string{}
	for _, one := range all[0].Chunked {
		rows[one.Row] = values[one.Value]
	}
	require.Equal(t, map[string]string{"old": before, "new": body("whole", 1)}, rows)
	require.NoError(t, c.conn.CloseNow())
	h.awaitFree(h.s)

	// Without chunks, the error names the change that does not fit.
	h.Exec(`insert into doc values (200, 'first', 'a', 1)`, `update doc set body = `+odd+` where id = 1`)
	c = h.dialStream("/v2/slots/" + h.s + "/stream?max_message=65536")
	require.EqualValues(t, 200, c.readMessage().Changes[0].New["id"])
	m := c.readMessage()
	require.Equal(t, "too_large", m.Code)
	require.Regexp(t, `an update of public\.doc \(id = "1"\) at [0-9A-F]+/[0-9A-F]+ takes [0-9]{6,} bytes, and the client takes 65536 \(max_message\).* large=chunks`, m.Error)
	for query, text := range map[string]string{"max_message=100": "65536 or more", "large=chunks": "it needs max_message", "max_message=100000&large=x": "error or chunks"} {
		a := h.request("GET", "/v2/slots/"+h.s+"/stream?"+query, "", "Accept", "text/event-stream")
		require.Equal(t, 400, a.status, a.body)
		require.Contains(t, a.body, text)
	}
}
