// Package v1 serves the endpoints of PGDeltaStream: a slot with a snapshot, the rows of the snapshot, and the changes after
// it over a websocket, in the bytes of its documents. It needs no plugin on the server.
//
//	GET  /v1/init           ─► {"slotName":"delta_face56"}
//	POST /v1/snapshot/data  ─► [{"id":1,"name":"abc"}]
//	GET  /v1/lr/stream      ◄─► a text frame for each transaction, and {"lsn":"0/170FCB0"} back
//
// There is one session at a time: a slot, its snapshot, and at most one client that streams. An init ends the one before. What
// belongs to the installation is written in the comment of a publication, so that it is known after a restart, and
// nothing that somebody else has made is touched, whatever its name.
//
// It does not ask who calls: whoever mounts it does.
package v1

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/cdc/internal/settings"
)

// connections to the database are for short questions only; those of snapshots and streams come on top.
const poolConnections = 4

// Handler serves /v1/init, /v1/snapshot/data and /v1/lr/stream. It must be closed.
type Handler struct {
	config  Config
	mux     *http.ServeMux
	pool    *pgxpool.Pool
	markers markers

	ctx    context.Context //nolint:containedctx // it ends with Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup

	writeTimeout  time.Duration // how long a client may take to read a piece of a snapshot
	foreignTables atomic.Int64  // tables that are not the role's

	initializing chan struct{} // holds one while nobody does
	mu           sync.Mutex
	session      *session // nil before init, and in a new process
	streams      map[*streamClient]bool
	isClosed     bool
}

// New makes a handler. It does not connect: it works as soon as the database is there. It fails with a [*cdc.InvalidError].
func New(config Config) (*Handler, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.Conn = config.Conn.Copy()
	pooled, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	pooled.MaxConns = poolConnections
	settings.Pool(pooled, config.Conn, config.BeforeConnect)
	pool, err := pgxpool.NewWithConfig(context.Background(), pooled)
	if err != nil {
		return nil, err
	}
	h := &Handler{
		config: config, mux: http.NewServeMux(), pool: pool, markers: newMarkers(config.Installation),
		writeTimeout: defaultWriteTimeout, initializing: make(chan struct{}, 1), streams: map[*streamClient]bool{},
	}
	h.initializing <- struct{}{}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	for path, endpoint := range map[string]struct {
		method string
		serve  http.HandlerFunc
	}{
		"/v1/init":          {http.MethodGet, h.serveInit},
		"/v1/snapshot/data": {http.MethodPost, h.serveSnapshot},
		"/v1/lr/stream":     {http.MethodGet, h.serveStream},
	} {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != endpoint.method {
				w.Header().Set("Allow", endpoint.method)
				replyError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed: use "+endpoint.method, "")
				return
			}
			endpoint.serve(w, r)
		})
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		replyError(w, http.StatusNotFound, "there is nothing here: the endpoints are /v1/init, /v1/snapshot/data and /v1/lr/stream", "")
	})
	h.work.Go(h.refreshPublications)
	return h, nil
}

// ServeHTTP serves one request. Any number of them can be served at the same time.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.isForeign(r) {
		replyError(w, http.StatusForbidden, "the page is of another host, which is not one of those that are allowed", "")
		return
	}
	h.mu.Lock()
	closed := h.isClosed
	if !closed {
		h.work.Add(1)
	}
	h.mu.Unlock()
	if closed {
		replyError(w, http.StatusServiceUnavailable, errClosing.Error(), "")
		return
	}
	defer h.work.Done()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(h.ctx, func() { cancel(errClosing) })()
	h.mux.ServeHTTP(w, r.WithContext(ctx))
}

// Close ends the streams and the snapshot, and waits until all is released. The slot stays, and goes on in the next process.
// It can be called more than once.
func (h *Handler) Close() {
	h.mu.Lock()
	h.isClosed = true
	h.mu.Unlock()
	h.cancel(errClosing)
	h.work.Wait()
	h.endSession()
	h.pool.Close()
}
