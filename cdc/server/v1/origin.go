package v1

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// isForeign reports whether a browser sends a request for a page of another host. Such a page must not be able to reset a session or to
// read. Programs that are not browsers send no such headers.
func (h *Handler) isForeign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		return site != "" && site != "same-origin" && site != "none"
	}
	u, err := url.Parse(origin)
	if err != nil {
		return true
	}
	if strings.EqualFold(u.Host, r.Host) {
		return false
	}
	for _, pattern := range h.config.Origins {
		name := u.Host
		if strings.Contains(pattern, "://") {
			name = u.Scheme + "://" + u.Host
		}
		if match, err := path.Match(strings.ToLower(pattern), strings.ToLower(name)); match && err == nil {
			return false
		}
	}
	return true
}
