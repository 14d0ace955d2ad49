package console

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"net/http"
	"time"
)

// htmx is the unchanged script of the npm package. The Makefile pins its version, scripts/SHA256SUMS its checksum; `make console-scripts` fetches it
// again. Pages work without it: it only reloads a part of a page and swaps it in.
//
//go:embed scripts/htmx.min.js
var htmx []byte

// serveHTMX serves htmx. The browser caches the script and revalidates it each time, so that an old script never meets a newer page.
func (h *handler) serveHTMX(w http.ResponseWriter, r *http.Request, _ string) {
	sum := sha256.Sum256(htmx)
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(htmx))
}

// serveTailScript serves the script of the live tail.
func (h *handler) serveTailScript(w http.ResponseWriter, _ *http.Request, _ string) {
	h.serveFile(w, "page/tail.js", "text/javascript; charset=utf-8")
}
