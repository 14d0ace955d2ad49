package console_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/codectest"
)

// A console without the codec shows that objects are encoded, and what to do, and no ciphertext. One with the codec shows them.
func TestAnEncodedObjectIsNotShownAsItIsStored(t *testing.T) {
	t.Parallel()
	env := deltatest.New(t)
	with, err := delta.NewClient(env.Pool, &delta.Config{
		Temporal: env.Temporal, TemporalNamespace: env.TemporalNamespace, WorkflowIDPrefix: env.Prefix, Logger: slog.New(slog.DiscardHandler),
		ObjectCodec: codectest.Flipped[delta.Ref]{}, ObjectHashKey: bytes.Repeat([]byte{1}, 32),
	})
	require.NoError(t, err)
	_, err = with.Inform(t.Context(), order{Name: "o/1", Body: json.RawMessage(`{"amount": 17}`)}, nil)
	require.NoError(t, err)
	_, err = env.Pool.Exec(t.Context(), `SELECT delta_append_change('updated', delta_order_xid(null), 1, 'order', 'o/1', 'default', 1, 1, object, object, null, null) FROM delta_resource`)
	require.NoError(t, err)

	ciphertext, err := codectest.Flipped[delta.Ref]{}.EncodeObject(t.Context(), delta.Ref{}, []byte(`{"name":"o/1"`))
	require.NoError(t, err)
	stored := base64.StdEncoding.EncodeToString(ciphertext)[:12]
	address := serveConsole(t, newOrderClient(t, env, env.Pool), console.Config{})
	status, page := readPage(t, address+resourceAddressOf("order", "o/1"))
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "The object is encoded (")
	require.Contains(t, page, "open the console of a program whose codec has the key")
	require.Contains(t, page, "The object of this entry is encoded")
	require.NotContains(t, page, stored)
	require.NotContains(t, page, "delta.encoded")
	_, whole := readPage(t, address+strings.Replace(resourceAddressOf("order", "o/1"), "resource", "object", 1))
	require.Contains(t, whole, stored)

	_, page = readPage(t, serveConsole(t, with, console.Config{})+resourceAddressOf("order", "o/1"))
	require.Contains(t, page, "17")
	require.NotContains(t, page, "encoded")
}
