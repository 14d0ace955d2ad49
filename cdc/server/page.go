package server

import (
	"embed"
	"net/http"
	"strings"
)

//go:embed page
var pages embed.FS

// servePage serves one of the files of the page.
func servePage(file, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		text, err := pages.ReadFile(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(text)
	}
}

// hostsOf are the hosts of patterns of origins.
func hostsOf(origins []string) (hosts []string) {
	for _, o := range origins {
		if _, host, found := strings.Cut(o, "://"); found {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
