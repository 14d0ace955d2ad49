package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"sync"
	"time"

	"github.com/chariot-giving/delta/cdc"
)

// source is what a session reads: a stream, or one of the consumers that share it.
type source interface {
	Next(ctx context.Context) (*cdc.Transaction, error)
	Ack(lsn cdc.LSN) error
}

// sessionKey names a session among all. No name of a slot has a slash.
func sessionKey(slot, consumer string) string {
	if consumer == "" {
		return slot
	}
	return slot + "/" + consumer
}

func (s *session) key() string { return sessionKey(s.slot, s.consumer) }

// session is a client that reads a slot.
type session struct {
	server *Server
	slot   string
	owned  owned
	source source
	client client
	// consumer is the name of the one that the client reads as, empty where it has the slot to itself.
	consumer string
	// resync is nil unless the consumer begins anew, and its tables are not read to their ends. fail ends the session.
	resync *resync
	fail   context.CancelCauseFunc
	encode *encoder
	// auto has everything acknowledged that was sent: the slot ends with the client.
	auto bool
	// resume is the end of the last transaction that the client has, zero where it did not say.
	resume cdc.LSN

	mu sync.Mutex
	// published are the tables of the publication as they were seen last, nil before.
	published []string
	told      []string      // the tables that the client knows of, nil for those at the beginning; of the goroutine that sends
	acked     chan struct{} // told of acknowledgements
	queue     []cdc.LSN     // transactions that were sent and not acknowledged
	passed    cdc.LSN       // the last one that was read, sent or not; zero before the first
	last      cdc.LSN       // the last one that was acknowledged
	// unnamed is the latest transaction of which a consumer wants nothing; named is the one that the latest position had, and kept that of the position
	// before. The consumer has had a heartbeat's time to keep that token, so it counts as acknowledged. If it did sooner, a consumer that comes back with
	// its former token would have to resync: a fan-out refuses tokens behind an acknowledgement, because a consumer that was cut gives such a token, too.
	unnamed, named, kept cdc.LSN
	// confirmed is what the stream is to be told of soon: each time costs a message to Postgres.
	confirmed cdc.LSN
	soon      bool
}

// confirmDelay is how soon.
const confirmDelay = 10 * time.Millisecond

// run sends what comes, until the client goes away or something fails.
func (s *session) run(ctx context.Context) error {
	if s.resync != nil {
		if err := s.readNext(ctx); err != nil {
			return err
		}
	}
	for {
		if err := errors.Join(s.tellTables(), s.tell()); err != nil {
			return err
		}
		until, cancel := context.WithTimeout(ctx, s.server.config.HeartbeatInterval)
		err := s.sendUntil(ctx, until)
		cancel()
		switch {
		case errors.Is(err, errSlow):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		}
	}
}

// sendUntil sends until there is nothing to send when the context until ends, which is one of ctx. What is to be done between two transactions has ctx: the next
// table of a resync that was not begun because a heartbeat was due would never be.
func (s *session) sendUntil(ctx, until context.Context) error {
	for {
		if err := s.waitForRoom(until); err != nil {
			return err
		}
		if err := until.Err(); errors.Is(err, context.Canceled) {
			return err
		}
		t, err := s.source.Next(until)
		if err != nil {
			return err
		}
		if err := s.transaction(t); err != nil {
			return err
		}
		if t.BackfillEnds && s.resync != nil {
			if err := s.readNext(ctx); err != nil {
				return err
			}
		}
	}
}

// waitForRoom keeps a client that does not acknowledge from getting ever more.
func (s *session) waitForRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		full := len(s.queue) >= s.server.config.MaxUnacknowledged
		s.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-s.acked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// transaction sends the parts of one that the client wants.
func (s *session) transaction(t *cdc.Transaction) error {
	if known, err := s.known(t.EndLSN); known || err != nil {
		return err
	}
	if err := s.tellTables(); err != nil {
		return err
	}
	e := s.encode
	e.part = 0
	begun, open := false, false // the transaction, and a part of it
	for c, err := range t.Changes() {
		if err != nil {
			return err
		}
		schema := c.Kind == cdc.KindSchema
		if schema && !e.wantsSchema(c) || !schema && !e.wants(c) {
			continue
		}
		if open && (schema || e.changes > 0 && (e.full(c) || !e.fits(c))) {
			open = false
			e.end(false, "")
			if err := s.send("transaction", e.frame(), ""); err != nil {
				return err
			}
		}
		if schema {
			if err := s.tellSchema(t, c); err != nil {
				return err
			}
			continue
		}
		if !open {
			begun, open = true, true
			e.begin(t)
		}
		if e.filter.most > 0 {
			if err := e.setApart(c); err != nil {
				return err
			}
			if err := s.sendApart(t); err != nil {
				return err
			}
		}
		e.change(c)
		s.server.metrics.changes.Inc()
	}
	if !begun {
		s.pass(t.EndLSN)
		return nil
	}
	if !open { // a table has changed last, of whose rows the client wants none
		e.begin(t)
	}
	s.mu.Lock()
	s.queue, s.passed = append(s.queue, t.EndLSN), t.EndLSN
	s.mu.Unlock()
	token := s.token(t.EndLSN)
	e.end(true, token)
	if err := s.send("transaction", e.frame(), token); err != nil {
		return err
	}
	e.clear()
	e.apart = apart{}
	s.server.metrics.transactions.Inc()
	if s.auto {
		return s.ack(t.EndLSN)
	}
	return nil
}

// known passes over what the client has already. Nothing is acknowledged for it until the transaction that it has named is
// found: a position that is none of this slot's loses nothing.
func (s *session) known(end cdc.LSN) (bool, error) {
	switch {
	case s.resume == 0:
		return false, nil
	case end < s.resume:
		return true, nil
	case end > s.resume:
		return false, refusal(http.StatusGone, "resync_needed", fmt.Sprintf("no transaction of the slot ends at %s: begin with a new slot", s.resume))
	}
	s.resume = 0
	s.mu.Lock()
	s.passed, s.last = end, end
	s.confirm(end)
	s.mu.Unlock()
	s.server.remember(s.key(), s.owned, end)
	return true, nil
}

// pass notes a transaction of which the client wants nothing. It counts as acknowledged when all before it is.
func (s *session) pass(end cdc.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.unnamed = end, end
	if len(s.queue) == 0 && s.consumer == "" {
		s.confirm(end)
	}
}

// keep notes, with mu held, that a position is about to be named to a consumer, and confirms the one before.
func (s *session) keep() {
	if s.consumer == "" {
		return
	}
	s.kept, s.named = s.named, s.unnamed
	if len(s.queue) == 0 && s.kept > max(s.last, s.confirmed) {
		s.confirm(s.kept)
	}
}

// unwanted is the end of what the client wants nothing of, behind what it has acknowledged, with mu held.
func (s *session) unwanted() cdc.LSN {
	if s.consumer != "" {
		return s.kept
	}
	return s.passed
}

// confirm has the stream told, with mu held. Several at a time are told of as one.
func (s *session) confirm(end cdc.LSN) {
	s.confirmed = end
	if !s.soon {
		s.soon = true
		time.AfterFunc(confirmDelay, s.flush)
	}
}

// flush tells the stream what was confirmed. It cannot refuse it, but when it is closed: all of it was delivered, in order.
func (s *session) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.soon {
		s.soon = false
		if err := s.source.Ack(s.confirmed); err != nil && !errors.Is(err, cdc.ErrClosed) {
			s.server.config.Logger.Error("cdc/server: an acknowledgement was refused", "slot", s.slot, "error", err)
		}
	}
}

// ack confirms a transaction that was sent, and all before it.
func (s *session) ack(lsn cdc.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := sort.Search(len(s.queue), func(i int) bool { return s.queue[i] >= lsn })
	if i == len(s.queue) || s.queue[i] != lsn {
		if lsn == s.last || lsn == s.passed && len(s.queue) == 0 {
			return nil // a second time, or that of a heartbeat
		}
		delivered := s.last
		if n := len(s.queue); n > 0 {
			delivered = s.queue[n-1]
		}
		s.server.metrics.badAcks.Inc()
		return &cdc.AckError{LSN: lsn, Acknowledged: s.last, Delivered: delivered}
	}
	end := lsn
	if i+1 == len(s.queue) {
		end = max(end, s.unwanted())
	}
	s.confirm(end)
	s.queue, s.last = s.queue[i+1:], lsn
	s.server.remember(s.key(), s.owned, lsn)
	s.server.metrics.acks.Inc()
	select {
	case s.acked <- struct{}{}:
	default:
	}
	return nil
}

// tell sends the position. Its token is there where the client has all before it.
func (s *session) tell() error {
	s.mu.Lock()
	passed, last, waiting := s.passed, s.last, len(s.queue)
	s.keep()
	s.mu.Unlock()
	token := ""
	e := newEncoder(nil)
	e.text(`{"type":"position","lsn":`)
	e.lsn(max(passed, last))
	e.text(`,"acknowledged":`)
	e.lsn(last)
	e.text(`,"unacknowledged":`)
	e.number(uint64(waiting))
	e.text(`,"time":"`)
	e.buffer = time.Now().UTC().AppendFormat(e.buffer, time.RFC3339Nano)
	e.text(`"`)
	if s.resume == 0 && passed != 0 {
		token = s.token(passed)
	}
	if token != "" {
		e.text(`,"resume":`)
		e.string(token)
	}
	e.text(`}`)
	return s.send("position", e.frame(), token)
}

// token is where the client can go on, empty where it cannot: the slot ends with it, or it does not have all rows yet.
func (s *session) token(lsn cdc.LSN) string {
	if s.auto || s.resync != nil {
		return ""
	}
	return s.owned.token(lsn)
}

func (s *session) send(kind string, message frame, token string) error {
	written, err := s.client.send(kind, message, token)
	s.server.metrics.bytes.Add(written)
	return err
}
