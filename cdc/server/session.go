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

// source gives a session its transactions: a stream, or one consumer of a shared stream.
type source interface {
	Next(ctx context.Context) (*cdc.Transaction, error)
	Ack(lsn cdc.LSN) error
}

// sessionKey identifies a session. Names of slots have no slash.
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
	// consumer is the name of the consumer that the client reads as, empty if the client has the slot to itself.
	consumer string
	// resync is nil unless the consumer resyncs and its tables are not read to their ends. fail ends the session.
	resync  *resync
	fail    context.CancelCauseFunc
	encoder *encoder
	// isTail acknowledges every transaction when it is sent, because the slot ends with the client.
	isTail bool
	// resume is the end of the last transaction that the client has, 0 if it did not say.
	resume cdc.LSN

	mu sync.Mutex
	// published are the tables of the publication when it was last read, nil before.
	published   []string
	knownTables []string      // the tables last announced, nil for those at the start; only for the goroutine that sends
	ackSignal   chan struct{} // gets a value when the client acknowledges
	queue       []cdc.LSN     // ends of transactions that were sent and not acknowledged
	passed      cdc.LSN       // the last transaction that was read, sent or not; 0 before the first
	last        cdc.LSN       // the last acknowledged transaction
	// unnamed is the latest transaction that has nothing for a consumer, named is the one in the latest position message, and kept the one
	// in the position message before. The consumer has had a heartbeat interval to store the token of kept, so kept counts as acknowledged.
	// Confirming named at once would make a consumer that reconnects with its previous token resync, because a fan-out refuses tokens
	// before its acknowledged position: a consumer that was cut presents such a token, too.
	unnamed, named, kept cdc.LSN
	// confirmed is acknowledged to the stream after confirmDelay, because each acknowledgement is a message to Postgres.
	confirmed          cdc.LSN
	isConfirmScheduled bool
}

// confirmDelay is how long acknowledgements are collected before the stream gets the last one.
const confirmDelay = 10 * time.Millisecond

// run sends transactions and positions until the client disconnects or something fails.
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

// sendUntil sends transactions until the context until ends, which is derived from ctx. The next table of a resync is started with ctx:
// with until, a heartbeat that is due could cancel it, and the table would never be read.
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

// waitForRoom waits while the client has MaxUnacknowledged transactions to acknowledge.
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

// sendTransaction sends the changes of a transaction that the client wants, in parts.
func (s *session) sendTransaction(t *cdc.Transaction) error {
	if known, err := s.skipKnown(t.EndLSN); known || err != nil {
		return err
	}
	if err := s.sendTableChanges(); err != nil {
		return err
	}
	e := s.encoder
	e.part = 0
	begun, open := false, false // whether the transaction, and a part of it, was begun
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
	if !open { // the last change was of a table's schema, and no row is wanted after it
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

// skipKnown reports whether the client already has a transaction. Nothing is acknowledged before the transaction of the client's token is
// found, so a position that is not of this slot loses no changes.
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

// skipUnwanted notes a transaction that has nothing for the client. It counts as acknowledged when all transactions before it are.
func (s *session) skipUnwanted(end cdc.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed, s.unnamed = end, end
	if len(s.queue) == 0 && s.consumer == "" {
		s.scheduleConfirm(end)
	}
}

// confirmNamed is called with mu held before a position is sent to a consumer, and confirms the position sent before.
func (s *session) confirmNamed() {
	if s.consumer == "" {
		return
	}
	s.kept, s.named = s.named, s.unnamed
	if len(s.queue) == 0 && s.kept > max(s.last, s.confirmed) {
		s.scheduleConfirm(s.kept)
	}
}

// unwantedEnd returns the end of the transactions after the last acknowledged one that have nothing for the client. mu is held.
func (s *session) unwantedEnd() cdc.LSN {
	if s.consumer != "" {
		return s.kept
	}
	return s.passed
}

// scheduleConfirm acknowledges a position to the stream after confirmDelay, together with those that follow until then. mu is held.
func (s *session) scheduleConfirm(end cdc.LSN) {
	s.confirmed = end
	if !s.isConfirmScheduled {
		s.isConfirmScheduled = true
		time.AfterFunc(confirmDelay, s.flushConfirmed)
	}
}

// flushConfirmed acknowledges the confirmed position to the stream. Only a closed stream can refuse it, because all of it was delivered in
// order.
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

// ackTransaction acknowledges a transaction that was sent, and all before it.
func (s *session) ackTransaction(lsn cdc.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := sort.Search(len(s.queue), func(i int) bool { return s.queue[i] >= lsn })
	if i == len(s.queue) || s.queue[i] != lsn {
		if lsn == s.last || lsn == s.passed && len(s.queue) == 0 {
			return nil // repeated, or the position of a heartbeat
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

// sendPosition sends the position, with a token if the client has everything before it.
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

// resumeToken returns the token to resume after a position. It is empty for a tail, because its slot ends with the client, and during a resync,
// because the client does not have all rows yet.
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
