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

// admit makes room for a client.
func (s *Server) admit(slot string, tail bool) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, busy := s.sessions[slot]
	switch {
	case busy:
		return nil, cdc.ErrSlotBusy
	case s.clients >= s.config.MaxClients, tail && s.tails >= s.config.MaxTails:
		return nil, refusal(http.StatusServiceUnavailable, "no_room", "so many clients stream already as the server may have")
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

func (s *Server) streamSlot(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	one := &session{server: s, slot: name, consumer: r.URL.Query().Get("consumer"), acked: make(chan struct{}, 1)}
	var resume, incarnation string
	f, err := s.prepare(r, one)
	if err == nil {
		one.owned, err = s.mine(r.Context(), name)
	}
	if err == nil {
		err = f.miss(one.owned.Tables)
	}
	if err == nil {
		if resume = r.Header.Get("Last-Event-Id"); resume == "" {
			resume = r.URL.Query().Get("resume")
		}
		if resume != "" {
			one.resume, incarnation, err = parseToken(resume)
		}
	}
	if err == nil {
		err = one.checkConsumer(r.URL.Query().Get("resync"), resume != "")
	}
	if err == nil && resume != "" && incarnation != one.owned.Incarnation {
		err = refusal(http.StatusGone, "resync_needed", "the token is of an earlier slot of this name, and what was changed in between is lost: begin with a snapshot")
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	leave, err := s.admit(one.key(), false)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer leave()
	if err := s.begins(r.Context(), one); err != nil {
		s.refuse(w, r, err)
		return
	}
	config := s.streamConfig(name)
	config.Publications = []string{name}
	s.serveStream(w, r, one, config)
}

// prepare reads what both kinds of streams take.
func (s *Server) prepare(r *http.Request, one *session) (*filter, error) {
	if err := checkUpgrade(r); err != nil {
		return nil, err
	}
	f, err := s.newFilter(r.URL.Query())
	if err == nil {
		one.encode = newEncoder(f)
	}
	return f, err
}

// begins compares what the client has with where the slot is.
func (s *Server) begins(ctx context.Context, one *session) error {
	_, err := cdc.LookupSlot(ctx, s.pool, one.slot)
	if errors.Is(err, cdc.ErrNotFound) {
		var standby bool
		if err := s.pool.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil {
			return err
		}
		if standby { // the primary may come again, with the slot
			return cdc.ErrStandby
		}
		return refusal(http.StatusGone, "resync_needed", "the slot is gone, although it was not dropped here: DELETE it, and make it anew")
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	acked := s.acked[one.key()]
	s.mu.Unlock()
	if one.resume != 0 && acked.incarnation == one.owned.Incarnation && one.resume < acked.lsn {
		return refusal(http.StatusGone, "resync_needed", "what follows "+one.resume.String()+" was acknowledged already, up to "+acked.lsn.String()+", and does not come again")
	}
	return nil
}

// locate looks where the slot is once it is ours: Postgres may have learned of the last acknowledgement of the client before
// only meanwhile. What the client has not acknowledged is not confirmed, so that a token at or behind it covers nothing that comes.
func (s *Server) locate(ctx context.Context, one *session) error {
	if one.auto {
		return nil
	}
	slot, err := cdc.LookupSlot(ctx, s.pool, one.slot)
	if err != nil {
		return err
	}
	one.last = slot.Confirmed
	if err := s.checkEnd(ctx, one.resume); err != nil {
		return err
	}
	if one.resume != 0 && one.resume <= slot.Confirmed {
		one.passed, one.resume = one.resume, 0
	}
	return nil
}

// checkEnd refuses a position that the server does not have. It is asked once the slot is ours: a standby may not have replayed yet what the client has, and is
// not streamed from.
func (s *Server) checkEnd(ctx context.Context, resume cdc.LSN) error {
	var text string
	if err := s.pool.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text`).Scan(&text); err != nil {
		return err
	}
	if end, err := cdc.ParseLSN(text); err != nil || resume > end {
		return errors.Join(err, refusal(http.StatusGone, "resync_needed", "resume "+resume.String()+" is beyond the end of the log, "+text+
			": it is of a server whose last changes were lost in a failover, or of none"))
	}
	return nil
}

func (s *Server) streamConfig(slot string) cdc.Config {
	config := s.config.Stream
	config.Conn, config.Slot, config.Start, config.Temporary = s.config.Conn, slot, 0, false
	config.SchemaChanges, config.BeforeConnect, config.SkipUndecodable = true, s.config.BeforeConnect, s.decideUndecodable
	config.MemoryLimit, config.Logger = s.config.ClientMemory, s.config.Logger
	return config
}

// tail streams from now on.
func (s *Server) tail(w http.ResponseWriter, r *http.Request) {
	one := &session{server: s, slot: "delta_tail_" + strings.ToLower(rand.Text()[:12]), acked: make(chan struct{}, 1), auto: true}
	f, err := s.prepare(r, one)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	leave, err := s.admit(one.slot, true)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer leave()
	tables, err := s.publishTail(r.Context())
	if err == nil {
		err = f.miss(tables)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	config := s.streamConfig(one.slot)
	config.Temporary, config.Publications = true, []string{s.config.Publication}
	s.serveStream(w, r, one, config)
}

// serveStream opens the slot, so that what is wrong with it has a status, and then has the client read it.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, one *session, config cdc.Config) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	one.fail = cancel
	leave, err := s.openSource(ctx, one, config)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer leave()
	if one.client, err = s.accept(w, r); err != nil {
		s.config.Logger.Info("cdc/server: a client could not be accepted", "slot", one.slot, "error", err)
		return
	}
	s.mu.Lock()
	s.sessions[one.key()] = one
	s.mu.Unlock()
	s.config.Logger.Info("cdc/server: a client streams", "slot", one.slot, "consumer", one.consumer)
	if !one.auto {
		s.work.Go(func() { one.watch(ctx, cancel) })
	}
	if c, ok := one.client.(*socket); ok {
		// Its end closes the connection, over which the farewell is still to go.
		talking, hang := context.WithCancel(context.WithoutCancel(ctx))
		defer hang()
		s.work.Go(func() { cancel(one.listen(talking, c)) })
		s.work.Go(func() { one.pings(ctx, talking, cancel) })
	}
	defer one.stopReading()
	err = one.run(ctx)
	// That a client was cut, or has said something wrong, comes with a connection that has failed.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errSlow) && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	s.farewell(r, one, err)
}

// openSource opens the slot for the client, or has it read as a consumer. leave ends that, after what was acknowledged is told.
func (s *Server) openSource(ctx context.Context, one *session, config cdc.Config) (leave func(), err error) {
	if one.consumer != "" {
		return s.join(ctx, one)
	}
	stream, err := cdc.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	one.source = stream
	if err := s.locate(ctx, one); err != nil {
		stream.Close()
		return nil, err
	}
	named := one.slot
	if one.auto {
		named = ""
	}
	uncount := s.streams.add(named, stream)
	return func() {
		one.flush()
		uncount()
		stream.Close()
	}, nil
}

// farewell tells a client that is still there why it ends.
func (s *Server) farewell(r *http.Request, one *session, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		err = &goneError{"the client is gone"}
	}
	s.config.Logger.Info("cdc/server: a client has ended", "slot", one.slot, "consumer", one.consumer, "reason", err)
	if errors.Is(err, errSlow) {
		s.metrics.slow.Inc()
	}
	if errors.As(err, new(*goneError)) {
		one.client.end(nil)
		return
	}
	p := explain(err)
	if one.auto && errors.Is(err, cdc.ErrResyncNeeded) {
		p = refusal(http.StatusServiceUnavailable, "interrupted", "the connection to Postgres was lost, and changes with it: begin again")
	}
	if p.Code == "internal" {
		s.config.Logger.Warn("cdc/server: a stream has failed", "slot", one.slot, "error", err)
	}
	if !errors.Is(err, errSlow) {
		_, _ = one.client.send("error", errorMessage(p), "")
	}
	one.client.end(p)
}

// listen reads the acknowledgements of a websocket.
func (s *session) listen(ctx context.Context, c *socket) error {
	for {
		_, message, err := c.conn.Read(ctx)
		if err != nil {
			return gone(err)
		}
		var body struct {
			LSN string `json:"lsn"`
		}
		if json.Unmarshal(message, &body) != nil {
			body.LSN = string(message)
		}
		lsn, err := ackOf(body.LSN)
		if err == nil {
			err = s.ack(lsn)
		}
		if err != nil {
			return err
		}
	}
}

// pings sees that a client which does not say anything is there.
func (s *session) pings(ctx, talking context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(s.server.config.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.client.ping(talking); err != nil && ctx.Err() == nil {
			cancel(errSlow)
			return
		}
	}
}

// remember keeps what a client has acknowledged, to know a client that has forgotten it.
func (s *Server) remember(key string, o owned, lsn cdc.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Incarnation != "" {
		s.acked[key] = position{o.Incarnation, lsn}
	}
}

// forget forgets what the clients of a slot, or one of its consumers, have acknowledged.
func (s *Server) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.acked {
		if k == key || strings.HasPrefix(k, key+"/") {
			delete(s.acked, k)
		}
	}
}

// acknowledge is for clients of Server-Sent Events, which cannot say anything themselves.
func (s *Server) acknowledge(w http.ResponseWriter, r *http.Request) {
	var body struct {
		LSN string `json:"lsn"`
	}
	err := s.decode(w, r, &body)
	var lsn cdc.LSN
	if err == nil {
		lsn, err = ackOf(body.LSN)
	}
	if err == nil {
		_, err = s.mine(r.Context(), r.PathValue("name"))
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.mu.Lock()
	one := s.sessions[sessionKey(r.PathValue("name"), r.URL.Query().Get("consumer"))]
	s.mu.Unlock()
	if one == nil {
		s.refuse(w, r, refusal(http.StatusConflict, "not_streaming", "nobody streams the slot from this server: only what was sent can be acknowledged"))
		return
	}
	if err := one.ack(lsn); err != nil {
		s.refuse(w, r, err)
		return
	}
	reply(w, http.StatusOK, map[string]cdc.LSN{"acknowledged": lsn})
}
