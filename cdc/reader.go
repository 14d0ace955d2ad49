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

// spilledWaiting is how many spilled transactions may wait for Next, if no others do.
const spilledWaiting = 16

// reader is what belongs to one connection of a stream.
type reader struct {
	stream    *Stream
	conn      *connection
	assembler assembler
	heard     time.Time // when the server last said something
	told      time.Time // when it was last told something
	confirmed LSN       // what it was told
	due       time.Time // when there is something to do again
	ticked    time.Time // when Next was last given something to acknowledge
}

// maintain tells the server what it is to know, and sets how long may be waited.
func (r *reader) maintain() error {
	s := r.stream
	s.woken.Store(false)
	s.soon.Store(false)
	written, confirmed := s.positions.status()
	since := time.Since(r.told)
	idle := since >= s.config.StatusInterval
	closed := s.ctx.Err() != nil
	if idle || confirmed > r.confirmed && (closed || since >= confirmTick) {
		now := status{written: written, confirmed: confirmed}
		if confirmed > r.confirmed { // on each connection once: a new one does not know what the one before was told
			now.fresh = confirmed
		}
		if err := r.conn.tell(now, idle); err != nil {
			return fmt.Errorf("cdc: writing: %w", err)
		}
		r.told, r.confirmed = time.Now(), confirmed
	}
	if closed {
		return ErrClosed
	}
	r.due = r.told.Add(s.config.StatusInterval)
	if confirmed > r.confirmed {
		r.due = r.told.Add(confirmTick)
		s.soon.Store(true)
	}
	if err := r.conn.Conn().SetReadDeadline(r.due); err != nil {
		return err
	}
	if s.woken.Load() { // since, and the deadline is ours now
		return r.conn.Conn().SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// tick has Next return a transaction without changes where nothing else can be acknowledged.
func (r *reader) tick() error {
	at, ok := r.stream.positions.idle()
	if !ok || time.Since(r.ticked) < r.stream.config.StatusInterval {
		return nil
	}
	r.ticked = time.Now()
	return r.emit(&Transaction{CommitLSN: at, EndLSN: at, decoder: r.assembler.decoder})
}

func (r *reader) message(message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return r.copied(m.Data)
	case *pgproto3.ErrorResponse:
		return r.lostPublication(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.NoticeResponse: // of Postgres 18 and later, which goes on without the changes
		if err := r.lostPublication(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))); errors.Is(err, ErrResyncNeeded) {
			return err
		}
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return errors.New("cdc: the server has ended the stream")
	default:
		return nil // changed parameters
	}
}

// lostPublication explains an error, or a warning, of a publication that the server does not find where it reads the log.
func (r *reader) lostPublication(err *pgconn.PgError) error {
	const undefined, notReady = "42704", "55000"
	for _, name := range r.stream.config.Publications {
		if (err.Code == undefined || err.Code == notReady) && strings.Contains(err.Message, name) {
			return &ResyncError{Slot: r.stream.config.Slot, Reason: PublicationMissing, Detail: err.Message}
		}
	}
	if row := r.undecodable(err); row != nil {
		return row
	}
	return fmt.Errorf("cdc: streaming: %w", err)
}

func (r *reader) copied(data []byte) error {
	w := &wire{rest: data}
	switch kind := w.byte(); kind {
	case pglogrepl.XLogDataByteID:
		at := w.lsn()
		w.lsn()
		w.uint64()
		if w.err != nil {
			return w.err
		}
		return r.assembler.message(at, w.rest)
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		end := w.lsn()
		w.uint64()
		if w.byte() != 0 {
			r.told = time.Time{}
			r.stream.woken.Store(true)
		}
		if w.err == nil {
			r.stream.positions.advance(end, r.assembler.inside())
		}
	default:
		w.fail("a message of the unknown kind %q", kind)
	}
	return w.err
}

// emit hands a transaction to Next, and waits while too much waits there.
func (r *reader) emit(t *Transaction) error {
	s := r.stream
	if err := t.buffer.complete(); err != nil {
		r.assembler.drop(t)
		return err
	}
	weight := min(max(t.buffer.memory, 1), s.config.MemoryLimit/2)
	if t.Spilled {
		weight = s.config.MemoryLimit / 2 / spilledWaiting
	}
	if !s.memory.TryAcquire(weight) {
		if err := r.wait(func(ctx context.Context) error { return s.memory.Acquire(ctx, weight) }); err != nil {
			r.assembler.drop(t)
			return err
		}
	}
	t.weight = weight
	before := s.positions.received      // which only this goroutine changes
	hidden, end := t.hidden(), t.EndLSN // t is no longer ours when it is in the queue
	if !hidden {
		s.positions.receive(t)
	}
	var err error
	select {
	case s.queue <- t:
	default:
		err = r.wait(func(ctx context.Context) error {
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
		s.positions.forget(before)
		s.free(t)
	case err != nil:
		s.free(t)
	case hidden:
		s.positions.pass(end)
	}
	return err
}

// wait tries until it succeeds, and tends the connection meanwhile. A server that shuts down waits until all that it has sent was
// read, which may be never: the connection is given up then. What was not read comes again by the next one.
func (r *reader) wait(try func(context.Context) error) error {
	var closing shutdownWatch
	for {
		ctx, cancel := context.WithTimeout(r.stream.ctx, blockedTick)
		err := try(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if err := r.maintain(); err != nil {
			return err
		}
		if err := closing.look(r.stream); err != nil {
			return err
		}
		r.heard = time.Now()
	}
}
