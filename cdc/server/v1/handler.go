// Package v1 serves the endpoints of PGDeltaStream in the bytes of its documents: a slot with a snapshot, the rows of the snapshot, and the
// changes after it over a websocket. It needs no plugin in Postgres.
//
//	GET  /v1/init           ─► {"slotName":"delta_face56"}
//	POST /v1/snapshot/data  ─► [{"id":1,"name":"abc"}]
//	GET  /v1/lr/stream      ◄─► a text frame for each transaction, and {"lsn":"0/170FCB0"} back
//
// There is one session at a time: a slot, its snapshot, and at most one client that streams. An init ends the previous session. The comment
// of a publication lists what the installation has created, so it is known after a restart, and slots and publications of other programs
// are not touched, whatever their names.
//
// The handler does not authenticate callers: wrap it in a handler that does.
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

// poolConnections is the size of the pool, which serves short queries only. Snapshots and streams have connections outside of it.
const poolConnections = 4

// Handler serves /v1/init, /v1/snapshot/data and /v1/lr/stream. Call Close when done.
type Handler struct {
	config  Config
	mux     *http.ServeMux
	pool    *pgxpool.Pool
	markers markers

	ctx    context.Context //nolint:containedctx // it ends with Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup

	writeTimeout  time.Duration // for each piece of a snapshot
	foreignTables atomic.Int64  // number of tables that the role does not own

	initializing chan struct{} // has an element while no init runs
	mu           sync.Mutex
	session      *session // nil before the first init of this process
	streams      map[*streamClient]bool
	isClosed     bool
}

// New creates a handler. It does not connect, so it also works if the database is started later. It returns a [*cdc.InvalidError] if the
// configuration is invalid.
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
	settings.PreparePool(pooled, config.Conn, config.BeforeConnect)
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

// ServeHTTP serves one request. It may be called concurrently.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.isForeign(r) {
		replyError(w, http.StatusForbidden, "pages of this host are not allowed", "")
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

// Close ends the streams and the snapshot, and waits until their connections are closed. The slot stays, and can be streamed by the next
// process. Close may be called more than once.
func (h *Handler) Close() {
	h.mu.Lock()
	h.isClosed = true
	h.mu.Unlock()
	h.cancel(errClosing)
	h.work.Wait()
	h.endSession()
	h.pool.Close()
}
