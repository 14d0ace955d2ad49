package server

import (
	"embed"
	"net/http"
	"strings"
)

//go:embed page
var pageFiles embed.FS

// servePage serves one of the files of the page.
func servePage(file, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		text, err := pageFiles.ReadFile(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(text)
	}
}

// originHosts returns the hosts of patterns of origins.
func originHosts(origins []string) (hosts []string) {
	for _, o := range origins {
		if _, host, found := strings.Cut(o, "://"); found {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
