package console_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/console"
	"github.com/chariot-giving/delta/delta/deltatest"
	"github.com/chariot-giving/delta/internal/browsertest"
)

// What is served are the files that were pinned, the browser runs them under the policy, and nothing that is text.
func TestScriptsAreThoseThatWerePinned(t *testing.T) {
	t.Parallel()
	b := browsertest.New(t)
	address := serve(t, newClient(t, deltatest.New(t), &things{}), console.Config{})
	pinned, err := os.ReadFile("scripts/SHA256SUMS")
	require.NoError(t, err)
	for path, file := range map[string]string{"htmx.js": "htmx.min.js"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+path, nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		sum := sha256.Sum256(text)
		require.Contains(t, strings.Split(string(pinned), "\n"), hex.EncodeToString(sum[:])+"  "+file)
		status, _ := send(t, http.MethodGet, address+path, "", map[string]string{"If-None-Match": response.Header.Get("ETag")})
		require.Equal(t, http.StatusNotModified, status)
	}

	b.Open(address)
	b.Shows("No resource matches.")
	require.Equal(t, []any{"object", "function", false, false, false}, b.Execute(`return [typeof htmx, typeof htmx.createEventSource,
		htmx.config.allowEval, htmx.config.allowScriptTags, htmx.config.includeIndicatorStyles]`))
}
