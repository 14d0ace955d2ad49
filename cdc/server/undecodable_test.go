package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc/server"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
)

// A row that is not valid text ends its stream each time, until the operator configures to skip it.
func TestAnUndecodableRowIsSkippedIfConfigured(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	config := hostile.MakeEncoded(t, cdctest.Admin(t), "SQL_ASCII")
	owner := hostile.Owner(t, cdctest.Admin(t), config)
	execAs(t, owner, `CREATE TABLE t (id int PRIMARY KEY, v text)`, `SET client_encoding = 'SQL_ASCII'`)
	h := newHarnessOf(t, config)
	h.createSlot(h.s, `"tables":["public.t"],"snapshot":false`)
	at := "/v2/slots/" + h.s + "/stream"
	execAs(t, owner, `BEGIN`, `INSERT INTO t VALUES (1, 'a')`, `INSERT INTO t VALUES (2, E'caf\xe9')`, `INSERT INTO t VALUES (3, 'c')`, `COMMIT`)
	c := h.dialStream(at)
	m := c.readMessage()
	require.Equal(t, "error", m.Type)
	require.Equal(t, "undecodable", m.Code, m.Error)
	require.Contains(t, m.Error, `"public.t"`)
	_, err := c.readAny()
	require.Equal(t, websocket.StatusCode(4422), websocket.CloseStatus(err))
	position := m.Error[strings.LastIndex(m.Error, " ")+1:]
	require.Contains(t, m.Error, "--skip-undecodable "+position)
	require.NotContains(t, h.log.String(), "caf")

	h.stop()
	h.startWith(config, func(c *server.Config) { c.SkipUndecodable = []string{position} })
	m = h.dialStream(at).readMessage()
	require.Equal(t, "transaction", m.Type, m.Error)
	require.True(t, m.Final)
	require.Len(t, m.Changes, 2)
	for i, id := range []float64{1, 3} {
		require.InDelta(t, id, m.Changes[i].New["id"], 0)
	}
	log := h.log.String()
	for _, part := range []string{"left out", "table=public.t", "column=v", "position=" + position, "SQL_ASCII"} {
		require.Contains(t, log, part)
	}
	require.InDelta(t, 1, h.scrapeMetrics()["delta_stream_undecodable_rows_total"], 0)

	other := h.s + "_2"
	h.createSlot(other, `"tables":["public.t"]`)
	a := h.request("GET", "/v2/slots/"+other+"/snapshot/public.t", "")
	require.Equal(t, http.StatusUnprocessableEntity, a.status, "the decision was about another position")
	require.Equal(t, "undecodable", a.code())
	h.stop()
	h.startWith(config, func(c *server.Config) { c.SkipUndecodable = []string{"public.*"} })
	third := h.s + "_3"
	h.createSlot(third, `"tables":["public.t"]`)
	a = h.request("GET", "/v2/slots/"+third+"/snapshot/public.t", "")
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Len(t, decodeJSON[snapshotPage](t, a.body).Rows, 2)
	require.InDelta(t, 1, h.scrapeMetrics()["delta_stream_undecodable_rows_total"], 0)
}

func TestSkipUndecodableTakesPositionsAndPatterns(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"", "[a"} {
		_, err := server.New(t.Context(), server.Config{Conn: cdctest.Admin(t), SkipUndecodable: []string{wrong}})
		require.ErrorContains(t, err, "SkipUndecodable")
		require.ErrorContains(t, err, "a position, such as 0/16B3748, or a pattern of schema.table")
	}
}
