package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/chariot-giving/delta/cdc"
)

// admitClient counts a client, and refuses it if its slot is read already or too many clients stream. Call leave when it has ended.
func (s *Server) admitClient(slot string, tail bool) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, busy := s.sessions[slot]
	switch {
	case busy:
		return nil, cdc.ErrSlotBusy
	case s.clients >= s.config.MaxClients, tail && s.tails >= s.config.MaxTails:
		return nil, newProblem(http.StatusServiceUnavailable, "no_room", "the server has as many clients as it may: try again later")
	}
	s.sessions[slot] = nil
	s.clients++
	if tail {
		s.tails++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, slot)
		s.clients--
		if tail {
			s.tails--
		}
	}, nil
}

func (s *Server) serveSlotStream(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	sess := &session{server: s, slot: name, consumer: r.URL.Query().Get("consumer"), ackSignal: make(chan struct{}, 1)}
	var resume, incarnation string
	f, err := s.prepareSession(r, sess)
	if err == nil {
		sess.owned, err = s.findOwnSlot(r.Context(), name)
	}
	if err == nil {
		err = f.checkTables(sess.owned.Tables)
	}
	if err == nil {
		if resume = r.Header.Get("Last-Event-Id"); resume == "" {
			resume = r.URL.Query().Get("resume")
		}
		if resume != "" {
			sess.resume, incarnation, err = parseToken(resume)
		}
	}
	if err == nil {
		err = sess.checkConsumerRequest(r.URL.Query().Get("resync"), resume != "")
	}
	if err == nil && resume != "" && incarnation != sess.owned.Incarnation {
		err = newProblem(http.StatusGone, "resync_needed", "the token is of an earlier slot of this name, and the changes in between are lost: start with a snapshot")
	}
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	leave, err := s.admitClient(sess.key(), false)
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	defer leave()
	if err := s.checkResume(r.Context(), sess); err != nil {
		s.replyError(w, r, err)
		return
	}
	config := s.streamConfig(name)
	config.Publications = []string{name}
	s.serveStream(w, r, sess, config)
}

// prepareSession reads the parameters that streams of slots and tails share.
func (s *Server) prepareSession(r *http.Request, sess *session) (*filter, error) {
	if err := checkUpgrade(r); err != nil {
		return nil, err
	}
	f, err := s.newFilter(r.URL.Query())
	if err == nil {
		sess.encoder = newEncoder(f)
	}
	return f, err
}

// checkResume checks that the slot exists and that the client's token is not before an acknowledged position.
func (s *Server) checkResume(ctx context.Context, sess *session) error {
	_, err := cdc.LookupSlot(ctx, s.pool, sess.slot)
	if errors.Is(err, cdc.ErrNotFound) {
		var standby bool
		if err := s.pool.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil {
			return err
		}
		if standby { // the primary may return, and has the slot
			return cdc.ErrStandby
		}
		return newProblem(http.StatusGone, "resync_needed", "the slot is gone, although this server did not drop it: DELETE it, and create it again")
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	acked := s.acked[sess.key()]
	s.mu.Unlock()
	if sess.resume != 0 && acked.incarnation == sess.owned.Incarnation && sess.resume < acked.lsn {
		return newProblem(http.StatusGone, "resync_needed", "what follows "+sess.resume.String()+" was acknowledged already, up to "+acked.lsn.String()+", and is not sent again")
	}
	return nil
}

// locateSlot reads the position of the slot once this session has it, because Postgres may have processed the last acknowledgement of the
// previous client only now. Postgres has not confirmed anything that the client did not acknowledge, so a token at or before the confirmed
// position covers nothing that will be sent.
func (s *Server) locateSlot(ctx context.Context, sess *session) error {
	if sess.isTail {
		return nil
	}
	slot, err := cdc.LookupSlot(ctx, s.pool, sess.slot)
	if err != nil {
		return err
	}
	sess.last = slot.Confirmed
	if err := s.checkLogEnd(ctx, sess.resume); err != nil {
		return err
	}
	if sess.resume != 0 && sess.resume <= slot.Confirmed {
		sess.passed, sess.resume = sess.resume, 0
	}
	return nil
}

// checkLogEnd refuses a position beyond the end of the log. Call it when the session has the slot: a standby may not have replayed yet what
// the client has, and its slots cannot be streamed.
func (s *Server) checkLogEnd(ctx context.Context, resume cdc.LSN) error {
	var text string
	if err := s.pool.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text`).Scan(&text); err != nil {
		return err
	}
	if end, err := cdc.ParseLSN(text); err != nil || resume > end {
		return errors.Join(err, newProblem(http.StatusGone, "resync_needed", "resume "+resume.String()+" is beyond the end of the log, "+text+
			": it is from a server that has lost its last changes in a failover, or from another database"))
	}
	return nil
}

func (s *Server) streamConfig(slot string) cdc.Config {
	config := s.config.Stream
	config.Conn, config.Slot, config.Start, config.Temporary = s.config.Conn, slot, 0, false
	config.SchemaChanges, config.BeforeConnect, config.SkipUndecodable = true, s.config.BeforeConnect, s.skipUndecodable
	config.MemoryLimit, config.Logger = s.config.ClientMemory, s.config.Logger
	return config
}

// serveTail streams changes from now on, through a temporary slot.
func (s *Server) serveTail(w http.ResponseWriter, r *http.Request) {
	sess := &session{server: s, slot: "delta_tail_" + strings.ToLower(rand.Text()[:12]), ackSignal: make(chan struct{}, 1), isTail: true}
	f, err := s.prepareSession(r, sess)
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	leave, err := s.admitClient(sess.slot, true)
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	defer leave()
	tables, err := s.updateTailPublication(r.Context())
	if err == nil {
		err = f.checkTables(tables)
	}
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	config := s.streamConfig(sess.slot)
	config.Temporary, config.Publications = true, []string{s.config.Publication}
	s.serveStream(w, r, sess, config)
}

// serveStream opens the slot first, so that an error has a status, and then streams to the client.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, sess *session, config cdc.Config) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	sess.fail = cancel
	leave, err := s.openSource(ctx, sess, config)
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	defer leave()
	if sess.client, err = s.acceptClient(w, r); err != nil {
		s.config.Logger.Info("cdc/server: a client could not be accepted", "slot", sess.slot, "error", err)
		return
	}
	s.mu.Lock()
	s.sessions[sess.key()] = sess
	s.mu.Unlock()
	s.config.Logger.Info("cdc/server: a client streams", "slot", sess.slot, "consumer", sess.consumer)
	if !sess.isTail {
		s.work.Go(func() { sess.watchPublication(ctx, cancel) })
	}
	if c, ok := sess.client.(*socket); ok {
		// readAcks closes the connection when its context ends, so that context outlives ctx: the reason for the end is still to be sent.
		connCtx, closeConn := context.WithCancel(context.WithoutCancel(ctx))
		defer closeConn()
		s.work.Go(func() { cancel(sess.readAcks(connCtx, c)) })
		s.work.Go(func() { sess.pingClient(ctx, connCtx, cancel) })
	}
	defer sess.stopResync()
	err = sess.run(ctx)
	// If the client was disconnected, or sent a wrong message, the connection has failed as well: report the cause.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errSlow) && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	s.endClient(r, sess, err)
}

// openSource opens the slot for the client, or joins it as a consumer. leave closes that, after the last acknowledgement was passed on.
func (s *Server) openSource(ctx context.Context, sess *session, config cdc.Config) (leave func(), err error) {
	if sess.consumer != "" {
		return s.joinConsumer(ctx, sess)
	}
	stream, err := cdc.Open(ctx, config)
	if sess.isTail { // it has a slot of its own
		err = explainSlotTimeout(err, "the slot of the tail", config.WithDefaults().Timeout)
	}
	if err != nil {
		return nil, err
	}
	sess.source = stream
	if err := s.locateSlot(ctx, sess); err != nil {
		stream.Close()
		return nil, err
	}
	named := sess.slot
	if sess.isTail {
		named = ""
	}
	uncount := s.streams.addStream(named, stream)
	return func() {
		sess.flushConfirmed()
		uncount()
		stream.Close()
	}, nil
}

// endClient tells a client that is still there why its stream ends.
func (s *Server) endClient(r *http.Request, sess *session, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		err = &goneError{"the client is gone"}
	}
	s.config.Logger.Info("cdc/server: a client has ended", "slot", sess.slot, "consumer", sess.consumer, "reason", err)
	if errors.Is(err, errSlow) {
		s.metrics.slow.Inc()
	}
	if errors.As(err, new(*goneError)) {
		sess.client.close(nil)
		return
	}
	p := explainError(err)
	if sess.isTail && errors.Is(err, cdc.ErrResyncNeeded) {
		p = newProblem(http.StatusServiceUnavailable, "interrupted", "the connection to Postgres was lost, and changes were missed: start again")
	}
	if p.Code == "internal" {
		s.config.Logger.Warn("cdc/server: a stream has failed", "slot", sess.slot, "error", err)
	}
	if !errors.Is(err, errSlow) {
		_, _ = sess.client.send("error", errorMessage(p), "")
	}
	sess.client.close(p)
}

// readAcks reads the acknowledgements of a websocket.
func (s *session) readAcks(ctx context.Context, c *socket) error {
	for {
		_, message, err := c.conn.Read(ctx)
		if err != nil {
			return explainClose(err)
		}
		var body struct {
			LSN string `json:"lsn"`
		}
		if json.Unmarshal(message, &body) != nil {
			body.LSN = string(message)
		}
		lsn, err := parseAck(body.LSN)
		if err == nil {
			err = s.ackTransaction(lsn)
		}
		if err != nil {
			return err
		}
	}
}

// pingClient ends a client that does not answer pings.
func (s *session) pingClient(ctx, connCtx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(s.server.config.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.client.ping(connCtx); err != nil && ctx.Err() == nil {
			cancel(errSlow)
			return
		}
	}
}

// rememberAck stores the last acknowledgement of a client, to recognize a token from before it.
func (s *Server) rememberAck(key string, o ownedPublication, lsn cdc.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Incarnation != "" {
		s.acked[key] = position{o.Incarnation, lsn}
	}
}

// forgetAcks deletes the acknowledgements of the clients of a slot, or of one of its consumers.
func (s *Server) forgetAcks(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.acked {
		if k == key || strings.HasPrefix(k, key+"/") {
			delete(s.acked, k)
		}
	}
}

// serveAck takes an acknowledgement of a client of Server-Sent Events, which cannot send messages itself.
func (s *Server) serveAck(w http.ResponseWriter, r *http.Request) {
	var body struct {
		LSN string `json:"lsn"`
	}
	err := s.decodeBody(w, r, &body)
	var lsn cdc.LSN
	if err == nil {
		lsn, err = parseAck(body.LSN)
	}
	if err == nil {
		_, err = s.findOwnSlot(r.Context(), r.PathValue("name"))
	}
	if err != nil {
		s.replyError(w, r, err)
		return
	}
	s.mu.Lock()
	sess := s.sessions[sessionKey(r.PathValue("name"), r.URL.Query().Get("consumer"))]
	s.mu.Unlock()
	if sess == nil {
		s.replyError(w, r, newProblem(http.StatusConflict, "not_streaming", "no client streams the slot from this server: only what was sent can be acknowledged"))
		return
	}
	if err := sess.ackTransaction(lsn); err != nil {
		s.replyError(w, r, err)
		return
	}
	replyJSON(w, http.StatusOK, map[string]cdc.LSN{"acknowledged": lsn})
}
