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
	owned  ownedPublication
	source source
	client client
	// consumer is the name of the one that the client reads as, empty where it has the slot to itself.
	consumer string
	// resync is nil unless the consumer begins anew, and its tables are not read to their ends. fail ends the session.
	resync  *resync
	fail    context.CancelCauseFunc
	encoder *encoder
	// auto has everything acknowledged that was sent: the slot ends with the client.
	isTail bool
	// resume is the end of the last transaction that the client has, zero where it did not say.
	resume cdc.LSN

	mu sync.Mutex
	// published are the tables of the publication as they were seen last, nil before.
	published   []string
	knownTables []string      // the tables that the client knows of, nil for those at the beginning; of the goroutine that sends
	ackSignal   chan struct{} // told of acknowledgements
	queue       []cdc.LSN     // transactions that were sent and not acknowledged
	passed      cdc.LSN       // the last one that was read, sent or not; zero before the first
	last        cdc.LSN       // the last one that was acknowledged
	// unnamed is the latest transaction of which a consumer wants nothing; named is the one that the latest position had, and kept that of the position
	// before. The consumer has had a heartbeat's time to keep that token, so it counts as acknowledged. If it did sooner, a consumer that comes back with
	// its former token would have to resync: a fan-out refuses tokens behind an acknowledgement, because a consumer that was cut gives such a token, too.
	unnamed, named, kept cdc.LSN
	// confirmed is what the stream is to be told of soon: each time costs a message to Postgres.
	confirmed          cdc.LSN
	isConfirmScheduled bool
}

// confirmDelay is how soon.
const confirmDelay = 10 * time.Millisecond

// run sends what comes, until the client goes away or something fails.
func (s *session) run(ctx context.Context) error {
	if s.resync != nil {
		if err := s.readNextTable(ctx); err != nil {
			return err
		}
	}
	for {
		if err := errors.Join(s.sendTableChanges(), s.sendPosition()); err != nil {
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
		if err := s.sendTransaction(t); err != nil {
			return err
		}
		if t.BackfillEnds && s.resync != nil {
			if err := s.readNextTable(ctx); err != nil {
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
		case <-s.ackSignal:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendTransaction sends the parts of one that the client wants.
func (s *session) sendTransaction(t *cdc.Transaction) error {
	if known, err := s.skipKnown(t.EndLSN); known || err != nil {
		return err
	}
	if err := s.sendTableChanges(); err != nil {
		return err
	}
	e := s.encoder
	e.part = 0
	begun, open := false, false // the transaction, and a part of it
	for c, err := range t.Changes() {
		if err != nil {
			return err
		}
		schema := c.Kind == cdc.KindSchema
		if schema && !e.wantsSchema(c) || !schema && !e.wantsChange(c) {
			continue
		}
		if open && (schema || e.changes > 0 && (e.isPartFull(c) || !e.hasRoomFor(c))) {
			open = false
			e.endPart(false, "")
			if err := s.sendMessage("transaction", e.toFrame(), ""); err != nil {
				return err
			}
		}
		if schema {
			if err := s.sendSchema(t, c); err != nil {
				return err
			}
			continue
		}
		if !open {
			begun, open = true, true
			e.beginPart(t)
		}
		if e.filter.maxMessage > 0 {
			if err := e.chooseChunked(c); err != nil {
				return err
			}
			if err := s.sendChunks(t); err != nil {
				return err
			}
		}
		e.writeChange(c)
		s.server.metrics.changes.Inc()
	}
	if !begun {
		s.skipUnwanted(t.EndLSN)
		return nil
	}
	if !open { // a table has changed last, of whose rows the client wants none
		e.beginPart(t)
	}
	s.mu.Lock()
	s.queue, s.passed = append(s.queue, t.EndLSN), t.EndLSN
	s.mu.Unlock()
	token := s.resumeToken(t.EndLSN)
	e.endPart(true, token)
	if err := s.sendMessage("transaction", e.toFrame(), token); err != nil {
		return err
	}
	e.reset()
	e.chunked = chunkedValues{}
	s.server.metrics.transactions.Inc()
	if s.isTail {
		return s.ackTransaction(t.EndLSN)
	}
	return nil
}

// skipKnown passes over what the client has already. Nothing is acknowledged for it until the transaction that it has named is
// found: a position that is none of this slot's loses nothing.
func (s *session) skipKnown(end cdc.LSN) (bool, error) {
	switch {
	case s.resume == 0:
		return false, nil
	case end < s.resume:
		return true, nil
	case end > s.resume:
		return false, newProblem(http.StatusGone, "resync_needed", fmt.Sprintf("no transaction of the slot ends at %s: begin with a new slot", s.resume))
	}
	s.resume = 0
	s.mu.Lock()
	s.passed, s.last = end, end
	s.scheduleConfirm(end)
	s.mu.Unlock()
	s.server.rememberAck(s.key(), s.owned, end)
	return true, nil
}

// skipUnwanted notes a transaction of which the client wants nothing. It counts as acknowledged when all before it is.
func (s *session) skipUnwanted(end cdc.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.unnamed = end, end
	if len(s.queue) == 0 && s.consumer == "" {
		s.scheduleConfirm(end)
	}
}

// confirmNamed notes, with mu held, that a position is about to be named to a consumer, and confirms the one before.
func (s *session) confirmNamed() {
	if s.consumer == "" {
		return
	}
	s.kept, s.named = s.named, s.unnamed
	if len(s.queue) == 0 && s.kept > max(s.last, s.confirmed) {
		s.scheduleConfirm(s.kept)
	}
}

// unwantedEnd is the end of what the client wants nothing of, behind what it has acknowledged, with mu held.
func (s *session) unwantedEnd() cdc.LSN {
	if s.consumer != "" {
		return s.kept
	}
	return s.passed
}

// scheduleConfirm has the stream told, with mu held. Several at a time are told of as one.
func (s *session) scheduleConfirm(end cdc.LSN) {
	s.confirmed = end
	if !s.isConfirmScheduled {
		s.isConfirmScheduled = true
		time.AfterFunc(confirmDelay, s.flushConfirmed)
	}
}

// flushConfirmed tells the stream what was confirmed. It cannot refuse it, but when it is closed: all of it was delivered, in order.
func (s *session) flushConfirmed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isConfirmScheduled {
		s.isConfirmScheduled = false
		if err := s.source.Ack(s.confirmed); err != nil && !errors.Is(err, cdc.ErrClosed) {
			s.server.config.Logger.Error("cdc/server: an acknowledgement was refused", "slot", s.slot, "error", err)
		}
	}
}

// ackTransaction confirms a transaction that was sent, and all before it.
func (s *session) ackTransaction(lsn cdc.LSN) error {
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
		end = max(end, s.unwantedEnd())
	}
	s.scheduleConfirm(end)
	s.queue, s.last = s.queue[i+1:], lsn
	s.server.rememberAck(s.key(), s.owned, lsn)
	s.server.metrics.acks.Inc()
	select {
	case s.ackSignal <- struct{}{}:
	default:
	}
	return nil
}

// sendPosition sends the position. Its token is there where the client has all before it.
func (s *session) sendPosition() error {
	s.mu.Lock()
	passed, last, waiting := s.passed, s.last, len(s.queue)
	s.confirmNamed()
	s.mu.Unlock()
	token := ""
	e := newEncoder(nil)
	e.writeText(`{"type":"position","lsn":`)
	e.writeLSN(max(passed, last))
	e.writeText(`,"acknowledged":`)
	e.writeLSN(last)
	e.writeText(`,"unacknowledged":`)
	e.writeNumber(uint64(waiting))
	e.writeText(`,"time":"`)
	e.buffer = time.Now().UTC().AppendFormat(e.buffer, time.RFC3339Nano)
	e.writeText(`"`)
	if s.resume == 0 && passed != 0 {
		token = s.resumeToken(passed)
	}
	if token != "" {
		e.writeText(`,"resume":`)
		e.writeString(token)
	}
	e.writeText(`}`)
	return s.sendMessage("position", e.toFrame(), token)
}

// resumeToken is where the client can go on, empty where it cannot: the slot ends with it, or it does not have all rows yet.
func (s *session) resumeToken(lsn cdc.LSN) string {
	if s.isTail || s.resync != nil {
		return ""
	}
	return s.owned.resumeToken(lsn)
}

func (s *session) sendMessage(kind string, message frame, token string) error {
	written, err := s.client.send(kind, message, token)
	s.server.metrics.bytes.Add(written)
	return err
}
