// Package server is the server `delta stream`: it streams the changes of a Postgres database over websockets and Server-Sent Events.
//
//	/              a page that lists the slots and shows changes as they happen
//	/v1/…          the endpoints of PGDeltaStream: package v1
//	/v2/slots      many slots, each with a client and a position of its own, and a snapshot in pages
//	/v2/tail       changes from now on, through a slot that ends with the connection
//	/livez, /readyz, /healthz, /metrics
//
// docs/stream.md has the protocol.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/cdc/internal/settings"
	v1 "github.com/chariot-giving/delta/cdc/server/v1"
)

// poolConnections is the size of the pool, which serves short queries only. Snapshots and streams have connections outside of it.
const poolConnections = 8

// maxCreations is how many slots are created at once. Each creation takes two connections of the pool, and may wait long for running
// transactions.
const maxCreations = poolConnections/2 - 1

// closeGrace is how long Close waits for clients that do not read.
const closeGrace = 2 * time.Second

// errClosing ends requests and streams when the server stops.
var errClosing = newProblem(http.StatusServiceUnavailable, "closing", "the server is stopping: connect again")

// Server serves the endpoints. Call Close when done.
type Server struct {
	config  Config
	access  *access
	pool    *pgxpool.Pool
	mux     *http.ServeMux
	metrics *counters
	streams streamRegistry
	v1      *v1.Handler

	ctx    context.Context //nolint:containedctx // it ends with Close
	cancel context.CancelCauseFunc
	// graceCtx ends closeGrace after ctx: until then, clients can still be sent the reason.
	graceCtx context.Context //nolint:containedctx // as above
	endGrace context.CancelFunc
	work     sync.WaitGroup

	mu          sync.Mutex
	isClosed    bool
	isLocal     bool // it listens on loopback only, as far as is known
	clients     int
	tails       int
	sessions    map[string]*session    // by slot and consumer; nil while the session starts
	sharedSlots map[string]*sharedSlot // by slot
	snapshots   map[string]*heldSnapshot
	acked       map[string]position  // by slot and consumer
	unreadSince map[string]time.Time // by slot: since when this server has seen it without a reader
	tailMu      sync.Mutex           // serializes updates of the publication of tails
	creations   chan struct{}        // has an element for each slot that is being created
}

// position is the last position that a client acknowledged, and the incarnation of the slot.
type position struct {
	incarnation string
	lsn         cdc.LSN
}

// New creates a server and checks that the database supports it: wal_level is logical, and the role may replicate. It returns a
// [*cdc.InvalidError] if not, or the error of the connection.
func New(ctx context.Context, config Config) (*Server, error) {
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
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), pooled)
	if err != nil {
		return nil, err
	}
	if err := checkDatabase(ctx, pool); err != nil {
		pool.Close()
		if settings.IsPooler(err) {
			err = invalidField(cdc.FieldConn, net.JoinHostPort(config.Conn.Host, strconv.Itoa(int(config.Conn.Port))), settings.PoolerRule)
		}
		return nil, err
	}
	s := &Server{
		config: config, access: newAccess(&config), pool: pool, metrics: newCounters(), streams: streamRegistry{open: map[measuredStream]string{}},
		sessions: map[string]*session{}, sharedSlots: map[string]*sharedSlot{}, snapshots: map[string]*heldSnapshot{}, acked: map[string]position{}, creations: make(chan struct{}, maxCreations),
	}
	streams := config.Stream
	streams.SkipUndecodable = s.skipUndecodable
	s.v1, err = v1.New(v1.Config{
		Conn: config.Conn, BeforeConnect: config.BeforeConnect, Installation: config.Installation, Tables: config.Tables, Origins: originHosts(config.Origins),
		MaxBody: config.MaxBody, SnapshotMax: config.SnapshotMax, PingInterval: config.HeartbeatInterval, Stream: streams, Logger: config.Logger,
		StreamOpened: s.streams.addStream,
	})
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.graceCtx, s.endGrace = context.WithCancel(context.Background())
	s.registerRoutes()
	return s, nil
}

func checkDatabase(ctx context.Context, pool *pgxpool.Pool) error {
	var level, role string
	var version int
	var may bool
	err := pool.QueryRow(ctx, `SELECT current_setting('wal_level'), current_setting('server_version_num')::int, rolname, rolsuper OR rolreplication
		FROM pg_roles WHERE rolname = current_user`).Scan(&level, &version, &role, &may)
	switch {
	case err != nil:
		return err
	case version < cdc.MinServerVersion:
		return invalidField(cdc.FieldServerVersion, version, "Postgres 14 or later")
	case level != "logical":
		return invalidField(cdc.FieldWALLevel, level, "logical: ALTER SYSTEM SET wal_level = 'logical', then restart the server")
	case !may:
		return invalidField("role", role, "one that may replicate: ALTER ROLE … REPLICATION")
	}
	return nil
}

func (s *Server) registerRoutes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /v2/slots", s.serveSlotList)
	s.mux.HandleFunc("POST /v2/slots", s.serveCreateSlot)
	s.mux.HandleFunc("GET /v2/slots/{name}", s.serveSlot)
	s.mux.HandleFunc("DELETE /v2/slots/{name}", s.serveDropSlot)
	s.mux.HandleFunc("GET /v2/slots/{name}/snapshot/{table...}", s.serveSnapshotPage)
	s.mux.HandleFunc("DELETE /v2/slots/{name}/snapshot", s.serveCloseSnapshot)
	s.mux.HandleFunc("GET /v2/slots/{name}/stream", s.serveSlotStream)
	s.mux.HandleFunc("POST /v2/slots/{name}/ack", s.serveAck)
	s.mux.HandleFunc("PUT /v2/slots/{name}/consumers/{consumer}", s.serveAddConsumer)
	s.mux.HandleFunc("DELETE /v2/slots/{name}/consumers/{consumer}", s.serveRemoveConsumer)
	s.mux.HandleFunc("GET /v2/tail", s.serveTail)
	s.mux.HandleFunc("GET /metrics", s.serveMetrics)
	s.mux.HandleFunc("GET /healthz", s.serveHealth)
	s.mux.HandleFunc("GET /livez", s.serveLive)
	s.mux.HandleFunc("GET /readyz", s.serveReady)
	s.mux.Handle("/v1/", http.HandlerFunc(s.serveV1))
	s.mux.HandleFunc("GET /{$}", servePage("page/index.html", "text/html; charset=utf-8"))
	s.mux.HandleFunc("GET /page.css", servePage("page/page.css", "text/css; charset=utf-8"))
	s.mux.HandleFunc("GET /page.js", servePage("page/page.js", "text/javascript; charset=utf-8"))
}

// openPaths are served without a token, because they hold no secret.
var openPaths = map[string]bool{"/": true, "/page.css": true, "/page.js": true, "/healthz": true, "/livez": true, "/readyz": true}

// ServeHTTP serves one request. It may be called concurrently.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.beginWork() {
		s.replyError(w, r, errClosing)
		return
	}
	defer s.work.Done()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errClosing) })()
	r = r.WithContext(ctx)

	answer, began := &statusRecorder{ResponseWriter: w}, time.Now()
	w = answer
	defer func() {
		if !answer.isStream() {
			s.metrics.observeRequest(s.routePattern(r), cmp.Or(answer.status, http.StatusOK), time.Since(began))
		}
	}()
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	if s.access.allowOrigin(w, r) {
		return
	}
	if p := s.access.checkRequest(r, openPaths[r.URL.Path]); p != nil {
		if p.status == http.StatusUnauthorized {
			header.Set("WWW-Authenticate", `Bearer realm="delta stream"`)
		}
		s.metrics.refused.Inc()
		replyJSON(w, p.status, p)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.serveNotFound(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// routePattern returns the pattern of the endpoint for a request. There are few, whatever paths clients ask for, so it can be a label of a
// metric.
func (s *Server) routePattern(r *http.Request) string {
	if _, pattern := s.mux.Handler(r); pattern != "" {
		return pattern
	}
	return "unknown"
}

// beginWork counts a request, so that Close waits for it. It reports false if the server is closed.
func (s *Server) beginWork() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		s.work.Add(1)
	}
	return !s.isClosed
}

func (s *Server) serveNotFound(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		other := r.Clone(r.Context())
		if other.Method = method; r.Method != method {
			if _, pattern := s.mux.Handler(other); pattern != "" {
				allowed = append(allowed, method)
			}
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.replyError(w, r, newProblem(http.StatusMethodNotAllowed, "method", "the method must be "+strings.Join(allowed, " or ")))
		return
	}
	s.replyError(w, r, newProblem(http.StatusNotFound, "unknown_path", "there is nothing here: the endpoints are in docs/stream.md"))
}

// serveV1 refuses /v1 if strangers could call it without a token, because its init is a GET that ends another client's session.
func (s *Server) serveV1(w http.ResponseWriter, r *http.Request) {
	if len(s.config.Tokens) == 0 && !s.isLocal {
		s.replyError(w, r, newProblem(http.StatusForbidden, "v1_off", "/v1 is off: it needs a token, or a server that listens on loopback only"))
		return
	}
	s.v1.ServeHTTP(w, r)
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := s.pool.Ping(ctx); err != nil {
		s.config.Logger.Warn("cdc/server: the database does not answer", "error", err)
		replyJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "the database does not answer"})
		return
	}
	replyJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveLive answers that the process runs. It does not query the database, because restarting this server would not repair the database.
func (s *Server) serveLive(w http.ResponseWriter, _ *http.Request) {
	replyJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveReady reports whether clients can be served: the database answers and is not a standby, because slots of a standby cannot be streamed.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	var standby bool
	err := s.pool.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby)
	switch {
	case err != nil:
		s.config.Logger.Warn("cdc/server: the database does not answer", "error", err)
		replyJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "the database does not answer"})
	case standby:
		replyJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "the database is a standby"})
	default:
		replyJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	}
}

// Serve serves requests until the context ends, then tells the clients, waits for them, and returns nil. It refuses with a
// [*cdc.InvalidError] to listen where other machines can call without a token, unless Insecure is set. Call it once; it closes the
// listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if err := s.CheckListenAddress(listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	s.isLocal = isLoopback(listener.Addr())
	if !slices.Contains(s.config.Tables, "*") {
		if _, _, err := s.findAllowedTables(ctx, s.config.Tables); err != nil && explainError(err).Code == "unknown_table" {
			s.config.Logger.Warn("cdc/server: no table matches yet", "tables", s.config.Tables)
		}
	}
	web := &http.Server{
		Handler: s, TLSConfig: s.config.TLS, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: newErrorLog(s.config.Logger),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		s.Close() // ends the streams, which Shutdown would wait for
		if web.Shutdown(ctx) != nil {
			_ = web.Close()
		}
	})
	var err error
	if s.config.TLS != nil {
		err = web.ServeTLS(listener, "", "")
	} else {
		err = web.Serve(listener)
	}
	if stop() {
		return fmt.Errorf("cdc/server: %w", err)
	}
	<-stopped
	return nil
}

// CheckListenAddress returns nil if [Server.Serve] would serve on an address, and a [*cdc.InvalidError] if other machines can reach the
// address and there is neither a token nor Config.Insecure.
func (s *Server) CheckListenAddress(address net.Addr) error {
	if isLoopback(address) || len(s.config.Tokens) > 0 || s.config.Insecure {
		return nil
	}
	return invalidField("listen", address, "a loopback address, unless there is a token (--token) or --insecure allows anybody")
}

func isLoopback(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback() // a socket in the file system is local too
}

// Close ends the streams and the snapshots, and waits until their connections are closed. Slots stay. It may be called more than once.
func (s *Server) Close() {
	s.mu.Lock()
	s.isClosed = true
	s.mu.Unlock()
	s.cancel(errClosing)
	timer := time.AfterFunc(closeGrace, s.endGrace)
	defer timer.Stop()
	defer s.endGrace()
	s.v1.Close()
	s.work.Wait()
	s.endSnapshots()
	s.pool.Close()
}
