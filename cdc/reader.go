package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// maxSpilledWaiting is how many spilled transactions may wait for Next, if no others do.
const maxSpilledWaiting = 16

// streamReader is the state of one connection of a stream.
type streamReader struct {
	stream       *Stream
	conn         *connection
	assembler    assembler
	lastReceived time.Time // when the last message arrived
	lastStatus   time.Time // when the last standby status was sent
	confirmed    LSN       // in the last standby status
	statusDue    time.Time // when the next standby status is due
	lastEmpty    time.Time // when the last empty transaction was emitted
}

// sendDueStatus sends a standby status if one is due, and sets the deadline for reading accordingly.
func (r *streamReader) sendDueStatus() error {
	s := r.stream
	s.isWoken.Store(false)
	s.isStatusScheduled.Store(false)
	written, confirmed := s.positions.status()
	since := time.Since(r.lastStatus)
	idle := since >= s.config.StatusInterval
	closed := s.ctx.Err() != nil
	if idle || confirmed > r.confirmed && (closed || since >= confirmInterval) {
		now := status{written: written, confirmed: confirmed}
		if confirmed > r.confirmed { // again on a new connection, because each walsender starts without it
			now.fresh = confirmed
		}
		if err := r.conn.sendStatus(now, idle); err != nil {
			return fmt.Errorf("cdc: writing: %w", err)
		}
		r.lastStatus, r.confirmed = time.Now(), confirmed
	}
	if closed {
		return ErrClosed
	}
	r.statusDue = r.lastStatus.Add(s.config.StatusInterval)
	if confirmed > r.confirmed {
		r.statusDue = r.lastStatus.Add(confirmInterval)
		s.isStatusScheduled.Store(true)
	}
	if err := r.conn.Conn().SetReadDeadline(r.statusDue); err != nil {
		return err
	}
	if s.isWoken.Load() { // woken meanwhile: the new deadline has replaced the one that wakes
		return r.conn.Conn().SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// emitEmptyTransaction makes Next return a transaction without changes if nothing else can be acknowledged.
func (r *streamReader) emitEmptyTransaction() error {
	at, ok := r.stream.positions.idlePosition()
	if !ok || time.Since(r.lastEmpty) < r.stream.config.StatusInterval {
		return nil
	}
	r.lastEmpty = time.Now()
	return r.emitTransaction(&Transaction{CommitLSN: at, EndLSN: at, decoder: r.assembler.decoder})
}

func (r *streamReader) handleMessage(message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return r.handleCopyData(m.Data)
	case *pgproto3.ErrorResponse:
		return r.explainServerError(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.NoticeResponse: // Postgres 18 and later only warns, and leaves the changes out
		if err := r.explainServerError(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))); errors.Is(err, ErrResyncNeeded) {
			return err
		}
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return errors.New("cdc: the server has ended the stream")
	default:
		return nil // such as a changed parameter
	}
}

// explainServerError returns an error of the server as one of this package's: a publication that the server does not
// find at its position in the log, or a row that it cannot decode.
func (r *streamReader) explainServerError(err *pgconn.PgError) error {
	const undefined, notReady = "42704", "55000"
	for _, name := range r.stream.config.Publications {
		if (err.Code == undefined || err.Code == notReady) && strings.Contains(err.Message, name) {
			return &ResyncError{Slot: r.stream.config.Slot, Reason: PublicationMissing, Detail: err.Message}
		}
	}
	if row := r.undecodableChange(err); row != nil {
		return row
	}
	return fmt.Errorf("cdc: streaming: %w", err)
}

func (r *streamReader) handleCopyData(data []byte) error {
	w := &messageReader{rest: data}
	switch kind := w.readByte(); kind {
	case pglogrepl.XLogDataByteID:
		at := w.readLSN()
		w.readLSN()
		w.readUint64()
		if w.err != nil {
			return w.err
		}
		return r.assembler.addMessage(at, w.rest)
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		end := w.readLSN()
		w.readUint64()
		if w.readByte() != 0 {
			r.lastStatus = time.Time{}
			r.stream.isWoken.Store(true)
		}
		if w.err == nil {
			r.stream.positions.noteServerPosition(end, r.assembler.isInTransaction())
		}
	default:
		w.fail("a message of the unknown kind %q", kind)
	}
	return w.err
}

// emitTransaction queues a transaction for Next, and waits while the queue or its memory is full.
func (r *streamReader) emitTransaction(t *Transaction) error {
	s := r.stream
	if err := t.buffer.flushFile(); err != nil {
		r.assembler.dropTransaction(t)
		return err
	}
	weight := min(max(t.buffer.memory, 1), s.config.MemoryLimit/2)
	if t.Spilled {
		weight = s.config.MemoryLimit / 2 / maxSpilledWaiting
	}
	if !s.memory.TryAcquire(weight) {
		if err := r.retryWhileBlocked(func(ctx context.Context) error { return s.memory.Acquire(ctx, weight) }); err != nil {
			r.assembler.dropTransaction(t)
			return err
		}
	}
	t.memoryWeight = weight
	before := s.positions.received        // only this goroutine changes it
	hidden, end := t.isHidden(), t.EndLSN // once queued, t belongs to the caller of Next
	if !hidden {
		s.positions.noteReceived(t)
	}
	var err error
	select {
	case s.queue <- t:
	default:
		err = r.retryWhileBlocked(func(ctx context.Context) error {
			select {
			case s.queue <- t:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	switch {
	case err != nil && !hidden:
		s.positions.dropLastReceived(before)
		s.releaseTransaction(t)
	case err != nil:
		s.releaseTransaction(t)
	case hidden:
		s.positions.noteEmpty(end)
	}
	return err
}

// retryWhileBlocked calls a function until it succeeds, and keeps the connection alive meanwhile. A server that shuts
// down waits until everything it has sent was read, which may never happen. So the connection is closed then, and the
// next one receives the rest again.
func (r *streamReader) retryWhileBlocked(try func(context.Context) error) error {
	var closing shutdownWatch
	for {
		ctx, cancel := context.WithTimeout(r.stream.ctx, blockedInterval)
		err := try(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if err := r.sendDueStatus(); err != nil {
			return err
		}
		if err := closing.checkShutdown(r.stream); err != nil {
			return err
		}
		r.lastReceived = time.Now()
	}
}
