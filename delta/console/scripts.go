package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"time"
)

// scriptFiles has htmx, as npm has it. Its version is pinned in the Makefile, and its sum in scripts/SHA256SUMS: `make console-scripts` fetches it again. Pages work without them: scripts only load a part of a page again, and swap it in.
//
//go:embed scripts/*.js
var scriptFiles embed.FS

// scriptNames are the files by their addresses.
var scriptNames = map[string]string{"/htmx.js": "scripts/htmx.min.js"}

// script serves one of them. The browser keeps it and asks each time whether it is still the same, so that an upgrade is never mixed with an older page.
func (h *handler) script(w http.ResponseWriter, r *http.Request, _ string) {
	text, err := scriptFiles.ReadFile(scriptNames[r.URL.Path])
	if err != nil {
		h.problem(w, http.StatusInternalServerError, err.Error())
		return
	}
	sum := sha256.Sum256(text)
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}
