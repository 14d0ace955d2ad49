package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"time"

	"github.com/chariot-giving/delta/internal/exposition"
	"github.com/chariot-giving/delta/sinks"
)

// serveGrace is how long running requests may take when the server is stopped.
const serveGrace = 5 * time.Second

// serveHTTP serves metrics and probes until stop is called.
func (s *supervisor) serveHTTP(ctx context.Context, address string) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: s.newRoutes(), ReadHeaderTimeout: serveGrace, WriteTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ErrServerClosed
	}()
	s.logger.Info("serving", "url", "http://"+listener.Addr().String())
	return func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), serveGrace)
		defer cancel()
		_ = server.Shutdown(ending) // answers that take longer are cut
		<-served
	}, nil
}

func (s *supervisor) newRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		relays := map[string]sinks.Stats{}
		s.mu.Lock()
		for name, relay := range s.running {
			relays[name] = sinks.Stats{} // its source is not open
			if relay != nil {
				relays[name] = relay.Stats()
			}
		}
		s.mu.Unlock()
		var text bytes.Buffer
		if err := sinks.WriteMetrics(&text, relays); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", exposition.ContentType)
		_, _ = text.WriteTo(w)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { replyJSON(w, true, health{Status: "ok"}) })
	// A restart repairs nothing that these report, so neither is for a liveness probe.
	mux.HandleFunc("GET /readyz", s.serveHealth)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	return mux
}

// health is the answer to a probe. Relays has the relays that do not run, with the reason.
type health struct {
	Status string            `json:"status"`
	Relays map[string]string `json:"relays,omitempty"`
}

// serveHealth answers 200 while each relay has its source.
func (s *supervisor) serveHealth(w http.ResponseWriter, _ *http.Request) {
	h := health{Status: "ok", Relays: map[string]string{}}
	s.mu.Lock()
	for name, running := range s.running {
		if running == nil {
			h.Relays[name] = "its source is not open"
		}
	}
	for _, name := range s.ended {
		h.Relays[name] = "it has ended"
	}
	s.mu.Unlock()
	if len(h.Relays) > 0 {
		h.Status = "relays do not run"
	}
	replyJSON(w, len(h.Relays) == 0, h)
}

func replyJSON(w http.ResponseWriter, ok bool, h health) {
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h)
}
