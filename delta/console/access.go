package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// contentPolicy allows stylesheets, script files, forms and requests of the same origin, and the empty icon. No inline script runs, even if a page
// shows text from users, and no text is evaluated as a script.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; " +
	"frame-ancestors 'none'"

// setSecurityHeaders forbids the browser to run, frame, cache or refer to what a page shows.
func setSecurityHeaders(header http.Header) {
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	// With no-referrer, browsers would send "Origin: null" with forms.
	header.Set("Referrer-Policy", "same-origin")
}

// identifyUser names the user of a request. If the request is refused, refused is the status of the answer, otherwise 0.
func (h *handler) identifyUser(r *http.Request) (user string, refused int) {
	switch {
	case h.config.Authenticate != nil:
		user, ok := h.config.Authenticate(r)
		if !ok {
			return "", http.StatusUnauthorized
		}
		return user, 0
	case h.config.Passwords != nil:
		user, password, _ := r.BasicAuth()
		want, known := h.config.Passwords[user]
		if !isEqual(password, want) || !known {
			return "", http.StatusUnauthorized
		}
		return user, 0
	case h.config.Token != "":
		user, given, isBasic := r.BasicAuth()
		if !isBasic {
			user = "token"
			given = bearerToken(r)
		}
		if !isEqual(given, h.config.Token) {
			return "", http.StatusUnauthorized
		}
		return user, 0
	case !isLocal(r):
		return "", http.StatusForbidden
	}
	return "", 0
}

// isEqual compares secrets in constant time, and hides their lengths.
func isEqual(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// bearerToken returns the bearer token of a request, or empty if it has none.
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// isLocal reports whether a request comes from this machine, to a loopback address and by a loopback name. The name is checked because a foreign
// page could resolve its own host name to 127.0.0.1 (DNS rebinding). Requests with the header of a proxy are not local: a proxy on this machine
// passes on callers from elsewhere.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && isLoopback(local.String()) && isLoopback(r.RemoteAddr) && isLoopback(r.Host)
}

// isLoopback reports whether a host, with or without a port, names this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// isSameOrigin reports whether the browser says that the form was sent by a page of this origin. A request without these headers is refused too,
// because programs have the client and the command line.
func isSameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// A form is accepted if the values of this cookie and this form field are equal: another site can read neither. The server keeps no state for it, so
// any replica can answer.
const (
	tokenCookie = "delta_console"
	tokenField  = "token"
)

// formToken returns the token for the browser's forms, and sets its cookie if there is none. The cookie has no Path, so it applies to the
// folder of the page as the browser sees it, whatever prefix a proxy adds or removes.
func formToken(w http.ResponseWriter, r *http.Request) string {
	if cookie, err := r.Cookie(tokenCookie); err == nil && len(cookie.Value) == len(rand.Text()) {
		return cookie.Value
	}
	token := rand.Text()
	r.Header.Set("Cookie", tokenCookie+"="+token+"; "+r.Header.Get("Cookie")) // so that a second call for this request returns the same token
	isSecure := r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
	http.SetCookie(w, &http.Cookie{Name: tokenCookie, Value: token, HttpOnly: true, Secure: isSecure, SameSite: http.SameSiteStrictMode}) //nolint:gosec // Secure only if the browser uses TLS, otherwise it would not be sent back
	return token
}

// hasFormToken reports whether the form has the token of the browser's cookie.
func hasFormToken(r *http.Request) bool {
	cookie, err := r.Cookie(tokenCookie)
	return err == nil && cookie.Value != "" && subtle.ConstantTimeCompare([]byte(cookie.Value), []byte(r.PostFormValue(tokenField))) == 1
}

// checkCommand returns why a command of a form is refused, with the status of the answer, or 0 if it is allowed. known reports whether the command exists.
func (h *handler) checkCommand(r *http.Request, c Command, known bool) (status int, text string) {
	switch {
	case !isSameOrigin(r):
		return http.StatusForbidden, "A command must come from a page of this console."
	case !hasFormToken(r):
		return http.StatusForbidden, "The form does not belong to this browser. Load its page again."
	case !known:
		return http.StatusBadRequest, "There is no such command."
	case !h.isAuthorized(r, c):
		return http.StatusForbidden, "You may not give this command."
	}
	return 0, ""
}
