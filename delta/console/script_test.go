package console_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/browsertest"
)

// What is served is the file that was pinned, and the browser runs it under the policy, and nothing that is text.
func TestTheScriptIsTheOneThatWasPinned(t *testing.T) {
	t.Parallel()
	b := browsertest.New(t)
	address := serve(t, newClient(t, deltatest.New(t), &things{}), console.Config{})
	pinned, err := os.ReadFile("scripts/SHA256SUMS")
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"htmx.js", nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	sum := sha256.Sum256(text)
	require.Equal(t, hex.EncodeToString(sum[:])+"  htmx.min.js\n", string(pinned))
	status, _ := send(t, http.MethodGet, address+"htmx.js", "", map[string]string{"If-None-Match": response.Header.Get("ETag")})
	require.Equal(t, http.StatusNotModified, status)

	b.Open(address + "resources")
	b.Shows("No resource matches.")
	require.Equal(t, []any{"object", false, false, false}, b.Execute(`return [typeof htmx, htmx.config.allowEval, htmx.config.allowScriptTags, htmx.config.includeIndicatorStyles]`))
}
