package console

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"net/http"
	"time"
)

// htmx is the script as npm has it. Its version is pinned in the Makefile, and its sum in scripts/SHA256SUMS: `make console-scripts` fetches it again. Pages work without it: it only loads a part of a page again, and swaps it in.
//
//go:embed scripts/htmx.min.js
var htmx []byte

// script serves htmx. The browser keeps it and asks each time whether it is still the same, so that an upgrade is never mixed with an older page.
func (h *handler) script(w http.ResponseWriter, r *http.Request, _ string) {
	sum := sha256.Sum256(htmx)
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(htmx))
}

// tailScript serves the script of the live tail.
func (h *handler) tailScript(w http.ResponseWriter, _ *http.Request, _ string) {
	h.serveFile(w, "page/tail.js", "text/javascript; charset=utf-8")
}
