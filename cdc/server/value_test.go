package server_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// odd is text with everything that JSON escapes, and multi-byte characters where the text is cut.
const odd = `repeat(E'aä€😀"\\\\\n\t\u0001' || 'z', 20000)`

func TestLargeValuesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.Exec(accounts, `insert into account (id, name) values (1, `+odd+`)`)
	expected := cdctest.Query[string](h.Database, `select name from account`)
	h.createSlot(h.s, `"tables":["public.account"]`)
	page := decodeJSON[struct{ Rows []change }](t, h.request("GET", "/v2/slots/"+h.s+"/snapshot/public.account", "").body)
	require.Equal(t, expected, page.Rows[0].New["name"])
	h.Exec(`insert into account (id, name, f) select 2, name, 1 from account`)
	c := h.dialStream("/v2/slots/" + h.s + "/stream")
	m := c.readMessage()
	require.Equal(t, expected, m.Changes[0].New["name"])
	require.EqualValues(t, 1, m.Changes[0].New["f"])
	require.NoError(t, c.conn.CloseNow())
	h.awaitFree(h.s)
	next, _ := h.followEvents("/v2/slots/" + h.s + "/stream")
	require.Equal(t, expected, onlyChanges(next)().Changes[0].New["name"])
}

// Not parallel, because it measures memory. There is no copy besides that of the package cdc.
func TestAVeryLargeValueIsNotCopiedToTheClient(t *testing.T) {
	soak.Long(t)
	const size = 64 << 20
	h := newHarness(t, nil)
	h.Exec(accounts, `alter table account alter name set storage external`)
	h.createSlot(h.s, `"tables":["public.account"],"snapshot":false`)
	h.Exec(fmt.Sprintf(`insert into account (id, name) values (1, repeat('0123456789abcdef', %d))`, size/16))
	request, err := http.NewRequestWithContext(t.Context(), "GET", h.url+"/v2/slots/"+h.s+"/stream", nil)
	require.NoError(t, err)
	request.Header.Set("Accept", "text/event-stream")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	response, err := h.http.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text := bufio.NewReader(response.Body)
	const mark = `"name":"`
	for tail := ""; tail != mark; {
		b, err := text.ReadByte()
		require.NoError(t, err)
		if tail += string(b); len(tail) > len(mark) {
			tail = tail[1:]
		}
	}
	sum := sha256.New()
	_, err = io.CopyN(sum, text, size)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	expected := sha256.New()
	for range 64 {
		_, _ = io.WriteString(expected, strings.Repeat("0123456789abcdef", size/16/64))
	}
	require.Equal(t, hex.EncodeToString(expected.Sum(nil)), hex.EncodeToString(sum.Sum(nil)))
	most := after.TotalAlloc - before.TotalAlloc
	t.Logf("%.2f times its size", float64(most)/size)
	require.Less(t, most, uint64(size*5/2))
}
