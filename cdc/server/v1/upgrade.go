package v1

import (
	"net/http"
	"strings"
)

const noUpgrade = "could not upgrade to websocket connection"

// upgrades tells whether a request asks for a websocket.
func upgrades(r *http.Request) bool {
	return names(r.Header.Values("Connection"), "upgrade") && names(r.Header.Values("Upgrade"), "websocket")
}

// names tells whether one of the lists in a header holds a token.
func names(lists []string, token string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// upgrading has errors of the handshake answered as all others are.
type upgrading struct {
	http.ResponseWriter
	refused bool
}

// Unwrap gives access to what the writer can do besides.
func (u *upgrading) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// WriteHeader turns an error into ours: 403 for a page of another host, 400 for all else.
func (u *upgrading) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		u.ResponseWriter.WriteHeader(status)
		return
	}
	u.refused = true
	if status != http.StatusForbidden {
		refuse(u.ResponseWriter, http.StatusBadRequest, noUpgrade, "")
		return
	}
	refuse(u.ResponseWriter, status, noUpgrade, "the page is of another host, which is not one of those that are allowed")
}

func (u *upgrading) Write(data []byte) (int, error) {
	if u.refused {
		return len(data), nil
	}
	return u.ResponseWriter.Write(data)
}
