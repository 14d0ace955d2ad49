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

// contentPolicy allows the stylesheet, scripts, forms and requests of the same origin, and the empty icon. No script within a page runs, whatever the page
// shows, and no text is evaluated as one.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; " +
	"frame-ancestors 'none'"

// protect sets what keeps a browser from running, framing, keeping or passing on what is shown.
func protect(header http.Header) {
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	// no-referrer would have browsers send "Origin: null" with forms.
	header.Set("Referrer-Policy", "same-origin")
}

// identify names the user of a request. refused is the status of the answer where the request is refused, 0 where it is not.
func (h *handler) identify(r *http.Request) (user string, refused int) {
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

// isEqual compares secrets in a time that says nothing of them, their lengths included.
func isEqual(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// bearerToken is that of a request; empty where it has none.
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// isLocal reports whether a request comes from this machine, to a loopback address and by a name of one. The name keeps out pages of
// others whose name was given the address 127.0.0.1 after they were loaded. A proxy on this machine passes on callers from elsewhere.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && isLoopback(local.String()) && isLoopback(r.RemoteAddr) && isLoopback(r.Host)
}

// isLoopback reports whether a host, with or without a port, is this machine's own.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// isSameOrigin reports whether the browser says that a form was sent by a page of this origin. A program that says nothing is refused too:
// it has the client, or the command line.
func isSameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// The cookie and the field of forms whose values must be the same. Another site can read neither. It needs no memory in the server, so that any
// replica may answer.
const (
	tokenCookie = "delta_console"
	tokenField  = "token"
)

// formToken returns the token of the browser's forms, and gives the browser one if it has none. Without a path in it, the cookie
// is for the folder of the page as the browser sees it, whatever a proxy does to the prefix.
func formToken(w http.ResponseWriter, r *http.Request) string {
	if cookie, err := r.Cookie(tokenCookie); err == nil && len(cookie.Value) == len(rand.Text()) {
		return cookie.Value
	}
	token := rand.Text()
	r.Header.Set("Cookie", tokenCookie+"="+token+"; "+r.Header.Get("Cookie")) // a second call for this request gets the same
	isSecure := r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
	http.SetCookie(w, &http.Cookie{Name: tokenCookie, Value: token, HttpOnly: true, Secure: isSecure, SameSite: http.SameSiteStrictMode}) //nolint:gosec // Secure where the browser uses TLS: it would not be sent back otherwise
	return token
}

// hasFormToken reports whether a form has the token of its browser.
func hasFormToken(r *http.Request) bool {
	cookie, err := r.Cookie(tokenCookie)
	return err == nil && cookie.Value != "" && subtle.ConstantTimeCompare([]byte(cookie.Value), []byte(r.PostFormValue(tokenField))) == 1
}

// refusal says why a form may not do what it asks for, with the status of the answer; 0 where it may. known is whether there is such a command.
func (h *handler) refusal(r *http.Request, c Command, known bool) (status int, text string) {
	switch {
	case !isSameOrigin(r):
		return http.StatusForbidden, "A command must come from a page of this console."
	case !hasFormToken(r):
		return http.StatusForbidden, "The form is not one of this browser's. Load its page again."
	case !known:
		return http.StatusBadRequest, "There is no such command."
	case !h.mayDo(r, c):
		return http.StatusForbidden, "You may not give this command."
	}
	return 0, ""
}
