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

// WriteHeader turns an error into ours.
func (u *upgrading) WriteHeader(status int) {
	if u.refused = status >= http.StatusBadRequest; u.refused {
		refuse(u.ResponseWriter, http.StatusBadRequest, noUpgrade, "")
		return
	}
	u.ResponseWriter.WriteHeader(status)
}

func (u *upgrading) Write(data []byte) (int, error) {
	if u.refused {
		return len(data), nil
	}
	return u.ResponseWriter.Write(data)
}
