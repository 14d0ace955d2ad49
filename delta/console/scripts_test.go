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
	"github.com/chariot-giving/delta/internal/soak"
)

// The served script is the pinned file, and the content policy lets the browser run it, but no text.
func TestTheServedScriptIsThePinnedFile(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	b := browsertest.New(t)
	address := serveConsole(t, newClient(t, deltatest.New(t), &thingController{}), console.Config{})
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
	status, _ := sendRequest(t, http.MethodGet, address+"htmx.js", "", map[string]string{"If-None-Match": response.Header.Get("ETag")})
	require.Equal(t, http.StatusNotModified, status)

	b.Open(address + "resources")
	b.Shows("No resource matches.")
	require.Equal(t, []any{"object", false, false, false}, b.Execute(`return [typeof htmx, htmx.config.allowEval, htmx.config.allowScriptTags, htmx.config.includeIndicatorStyles]`))
}
