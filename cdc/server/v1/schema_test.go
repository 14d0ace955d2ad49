package v1_test

import (
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

func TestSchemaChangesAreSentOnRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t, testTable)
	slot := s.init()
	s.Exec(`insert into test_table (name) values ('a')`)
	conn, _, err := websocket.Dial(t.Context(), s.streamURL(slot)+"&schema=true", nil)
	require.NoError(t, err)
	c := &client{t, conn}
	c.receiveText()
	s.Exec(`alter table test_table add more int`, `insert into test_table (id, name) values (2000, 'b')`)
	frame := c.receiveText()
	require.Contains(t, frame, `"change":[{"kind":"schema","schema":"public","table":"test_table","columnnames":["id","name","more"],`+
		`"columntypes":["integer","text","integer"],"change":"added more"},{"kind":"insert",`)
	require.NoError(t, c.conn.CloseNow())

	// Other clients get the frames of the plugin.
	c = s.dialStream(slot)
	c.receiveText()
	frame = c.receiveText()
	require.Contains(t, frame, `"columnvalues":[2000,"b"`)
	require.NotContains(t, frame, `"kind":"schema"`)

	_, response, err := websocket.Dial(t.Context(), s.streamURL(slot)+"&schema=maybe", nil)
	require.Error(t, err)
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
}
