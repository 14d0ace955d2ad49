package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
)

// access decides which requests are allowed.
type access struct {
	tokens         [][sha256.Size]byte
	origins, hosts []string
}

func newAccess(config *Config) *access {
	a := &access{origins: config.Origins, hosts: config.Hosts}
	for _, token := range config.Tokens {
		a.tokens = append(a.tokens, sha256.Sum256([]byte(token)))
	}
	return a
}

// checkRequest refuses pages of other origins, unknown host names while there are no tokens, and requests without a token where one is
// required. isOpen marks a path that needs no token.
func (a *access) checkRequest(r *http.Request, isOpen bool) *problem {
	if len(a.tokens) == 0 && !a.knowsHost(r.Host) {
		return newProblem(http.StatusForbidden, "host", "the server does not accept this host name: see --host")
	}
	if !a.knowsOrigin(r, isOpen) {
		return newProblem(http.StatusForbidden, "origin", "pages of this origin may not call: see --origin")
	}
	if len(a.tokens) > 0 && !isOpen && !a.knowsToken(r) {
		return newProblem(http.StatusUnauthorized, "unauthorized", "a valid token is required: Authorization: Bearer …")
	}
	return nil
}

// knowsHost refuses the names of strangers: a page could make its own name resolve to the server's address after it was loaded.
func (a *access) knowsHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	return matchesAny(a.hosts, name)
}

// knowsOrigin refuses pages of other origins. Programs that are not browsers send no origin. A person may follow a link to an open path.
func (a *access) knowsOrigin(r *http.Request, isOpen bool) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		return site == "" || site == "same-origin" || site == "none" || isOpen && r.Header.Get("Sec-Fetch-Mode") == "navigate"
	}
	if a.allowsOrigin(origin) {
		return true
	}
	u, err := url.Parse(origin)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	// A proxy in front may have ended TLS, so the host decides.
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) && (u.Scheme == scheme || u.Scheme == "https")
}

func (a *access) allowsOrigin(origin string) bool {
	return matchesAny(a.origins, strings.ToLower(origin))
}

// knowsToken compares the hash with those of all tokens, so that the time it takes reveals nothing.
func (a *access) knowsToken(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	known := 0
	for _, t := range a.tokens {
		known |= subtle.ConstantTimeCompare(t[:], given[:])
	}
	return known == 1 && strings.EqualFold(scheme, "Bearer")
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok { // patterns were checked
			return true
		}
	}
	return false
}

// allowOrigin lets pages of the configured origins read the answers. It reports whether the request was a preflight, which it has answered.
func (a *access) allowOrigin(w http.ResponseWriter, r *http.Request) (isPreflight bool) {
	header := w.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !a.allowsOrigin(origin) {
		return false
	}
	header.Set("Access-Control-Allow-Origin", origin)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
