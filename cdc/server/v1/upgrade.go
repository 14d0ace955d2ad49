package v1

import (
	"net/http"
	"strings"
)

const noUpgradeText = "could not upgrade to websocket connection"

// wantsWebsocket reports whether a request asks for a websocket.
func wantsWebsocket(r *http.Request) bool {
	return headerHas(r.Header.Values("Connection"), "upgrade") && headerHas(r.Header.Values("Upgrade"), "websocket")
}

// headerHas reports whether one of the lists in a header contains a token.
func headerHas(lists []string, token string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// upgradeWriter replaces the answers of a failed handshake by one like all others.
type upgradeWriter struct {
	http.ResponseWriter
	refused bool
}

// Unwrap returns the writer for [http.ResponseController].
func (u *upgradeWriter) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// WriteHeader replaces an error.
func (u *upgradeWriter) WriteHeader(status int) {
	if u.refused = status >= http.StatusBadRequest; u.refused {
		replyError(u.ResponseWriter, http.StatusBadRequest, noUpgradeText, "")
		return
	}
	u.ResponseWriter.WriteHeader(status)
}

func (u *upgradeWriter) Write(data []byte) (int, error) {
	if u.refused {
		return len(data), nil
	}
	return u.ResponseWriter.Write(data)
}
