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

// access decides who may call.
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

// checkRequest refuses pages of other origins, names of other hosts while there are no tokens, and callers without a token where one
// is needed.
func (a *access) checkRequest(r *http.Request, open bool) *problem {
	if len(a.tokens) == 0 && !a.knowsHost(r.Host) {
		return newProblem(http.StatusForbidden, "host", "the server does not go by this name: see --host")
	}
	if !a.knowsOrigin(r, open) {
		return newProblem(http.StatusForbidden, "origin", "pages of this origin may not call: see --origin")
	}
	if len(a.tokens) > 0 && !open && !a.knowsToken(r) {
		return newProblem(http.StatusUnauthorized, "unauthorized", "a token that this server knows is needed: Authorization: Bearer …")
	}
	return nil
}

// knowsHost keeps out pages whose name was given the address of the server after they were loaded.
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

// knowsOrigin keeps out other pages. Programs that are no browsers send no origin. A person may follow a link to what is open.
func (a *access) knowsOrigin(r *http.Request, open bool) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		site := r.Header.Get("Sec-Fetch-Site")
		return site == "" || site == "same-origin" || site == "none" || open && r.Header.Get("Sec-Fetch-Mode") == "navigate"
	}
	if a.allowsOrigin(origin) {
		return true
	}
	u, err := url.Parse(origin)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	// A proxy may have ended TLS before us: what counts is the host.
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) && (u.Scheme == scheme || u.Scheme == "https")
}

func (a *access) allowsOrigin(origin string) bool {
	return matchesAny(a.origins, strings.ToLower(origin))
}

// knowsToken compares hashes, all of them, so that the time it takes tells nothing.
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

// allowOrigin lets the pages of other origins that are configured read the answers.
func (a *access) allowOrigin(w http.ResponseWriter, r *http.Request) (preflight bool) {
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
