package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/semaphore"

	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	queueLength = 1024
	// blockedInterval is how often acknowledgements are sent while the consumer is slower than the server.
	blockedInterval = 50 * time.Millisecond
	// confirmInterval is the shortest time between two standby status messages with new acknowledgements.
	confirmInterval = 10 * time.Millisecond
)

// Stream reads the transactions of a slot. It reconnects by itself; within one Stream no transaction is delivered
// twice. Next is for one goroutine at a time; all other methods may be called by any goroutine at any time.
type Stream struct {
	config       Config
	positions    positions
	queue        chan *Transaction
	memory       *semaphore.Weighted // for transactions in the queue
	spilled      atomic.Int64
	delivered    *Transaction // by the last call of Next
	backfills    backfills
	heartbeats   heartbeats
	ownProcesses []string       // backends of this stream's connections, the latest last
	schemas      *schemaTracker // nil without Config.SchemaChanges
	timeline     int32          // of the server at the last connection; zero for a standby
	protocol     int            // of the next connection
	resumeAt     LSN            // the next connection begins here or later: after a transaction that is left out

	cancel   context.CancelFunc
	ctx      context.Context //nolint:containedctx // ends with Close
	done     chan struct{}
	err      error           // the reason why done is closed
	alive    context.Context //nolint:containedctx // ends with the stream, for whatever reason
	endAlive context.CancelFunc

	isWoken           atomic.Bool
	isStatusScheduled atomic.Bool // the reader will send acknowledgements without being woken
	conn              atomic.Pointer[connection]
	counters          counters
	goroutines        sync.WaitGroup
}

// Open connects and starts to stream. The stream must be closed. The context bounds only the opening. It fails with an
// [*InvalidError], [ErrSlotBusy], [ErrStandby], [ErrResyncNeeded], an error of pgx if it cannot connect, or the
// context's error.
func Open(ctx context.Context, config Config) (*Stream, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.Conn = config.Conn.Copy()
	s := &Stream{
		config: config, queue: make(chan *Transaction, queueLength), done: make(chan struct{}),
		memory: semaphore.NewWeighted(config.MemoryLimit / 2), protocol: config.Protocol,
	}
	if config.SchemaChanges {
		s.schemas = newSchemaTracker()
	}
	conn, at, err := s.openReplication(ctx, config.Start)
	for end := time.Now().Add(time.Second); errors.Is(err, ErrSlotBusy) && time.Now().Before(end); {
		if backoff.Pause(ctx, blockedInterval) == nil { // the server releases a slot shortly after its last reader has closed
			conn, at, err = s.openReplication(ctx, config.Start)
		}
	}
	if err != nil {
		return nil, err
	}
	s.positions.start(at, config.OnlyAcknowledged)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.conn.Store(conn)
	s.alive, s.endAlive = context.WithCancel(context.Background())
	go s.run(conn)
	if config.Heartbeat > 0 {
		s.goroutines.Go(s.writeHeartbeats)
	}
	return s, nil
}

func (s *Stream) openReplication(ctx context.Context, confirmed LSN) (*connection, LSN, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	conn, err := openConnection(ctx, s.config.Conn, s.config.BeforeConnect, true)
	if err != nil {
		return nil, 0, err
	}
	at, err := s.checkTimeline(ctx, conn, confirmed)
	if err == nil {
		err = s.terminateLostConnection(ctx, conn)
	}
	if err == nil {
		at, err = conn.startReplication(ctx, &s.config, at, s.protocol, s.resumeAt)
	}
	if err != nil {
		conn.close()
		return nil, 0, err
	}
	return conn, at, nil
}

// Next waits for the next transaction. It fails with the context's error, with [ErrClosed], or, after all transactions
// that were received before, with the error that has ended the stream: [ErrResyncNeeded], a [*TooLargeError], a
// [*SpillError], an [*UndecodableError], [ErrProtocol], or an error of the server that is not solved by reconnecting.
func (s *Stream) Next(ctx context.Context) (*Transaction, error) {
	if err := s.finishDelivered(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	for {
		t, err := s.takeFromQueue(ctx)
		if err != nil {
			return nil, err
		}
		s.delivered = t
		s.backfills.observeTransaction(t)
		if !t.isHidden() {
			s.positions.noteDelivered(t)
			s.heartbeats.noteDelivered(t.EndLSN, time.Now())
			if t.Spilled {
				s.counters.spilled.Add(1)
			}
			s.counters.transactions.Add(1)
			s.counters.bytes.Add(t.Size)
			return t, nil
		}
		if err := s.finishDelivered(); err != nil {
			return nil, err
		}
	}
}

// takeFromQueue waits for the next transaction of the queue.
func (s *Stream) takeFromQueue(ctx context.Context) (*Transaction, error) {
	select {
	case t := <-s.queue:
		return t, nil
	default:
	}
	select {
	case t := <-s.queue:
		return t, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.done:
		select {
		case t := <-s.queue:
			return t, nil
		default:
			return nil, s.err
		}
	}
}

// finishDelivered releases the transaction that Next returned last. If it fails, it fails again at each call.
func (s *Stream) finishDelivered() error {
	if s.delivered == nil {
		return nil
	}
	if err := s.delivered.finish(); err != nil {
		return err
	}
	s.releaseTransaction(s.delivered)
	s.delivered = nil
	return nil
}

func (s *Stream) releaseTransaction(t *Transaction) {
	t.buffer.release()
	s.memory.Release(t.memoryWeight)
	if t.Spilled {
		s.spilled.Add(-t.Size)
	}
}

// Ack confirms that a transaction and all before it were processed. It returns at once; the server is told soon after.
// lsn is the EndLSN of a transaction that Next has returned; the last one may be acknowledged again. Any other position
// is an [*AckError].
func (s *Stream) Ack(lsn LSN) error {
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	if err := s.positions.acknowledge(lsn); err != nil {
		return err
	}
	if !s.isStatusScheduled.Load() {
		s.wakeReader()
	}
	return nil
}

// Close sends the last acknowledgements to the server, ends the stream and waits until its resources are released. It
// may be called more than once, but not concurrently with Next.
func (s *Stream) Close() {
	s.backfills.close()
	s.cancel()
	s.wakeReader()
	<-s.done
	s.goroutines.Wait()
	if s.delivered != nil {
		s.releaseTransaction(s.delivered)
		s.delivered = nil
	}
	for {
		select {
		case t := <-s.queue:
			s.releaseTransaction(t)
		default:
			return
		}
	}
}

// wakeReader interrupts the reader's wait for the network.
func (s *Stream) wakeReader() {
	if conn := s.conn.Load(); conn != nil && !s.isWoken.Swap(true) {
		_ = conn.Conn().SetReadDeadline(time.Unix(1, 0))
	}
}

// run reads, and reconnects, until the stream is closed or fails for good.
func (s *Stream) run(conn *connection) {
	defer s.endAlive()
	defer close(s.done)
	retry := backoff.New(s.config.ShortestRetry, s.config.LongestRetry)
	for {
		err := s.resumeAfterUndecodable(s.readConnection(conn, retry))
		s.goroutines.Go(conn.close)
		for conn = nil; conn == nil; {
			if s.ctx.Err() != nil {
				s.err = ErrClosed
				return
			}
			if !isTransient(err) {
				s.err = err
				s.config.Logger.Error("cdc: the stream ends", "slot", s.config.Slot, "error", err)
				return
			}
			delay := retry.Delay()
			s.config.Logger.Warn("cdc: the connection is lost", "slot", s.config.Slot, "error", err, "retry", delay)
			if backoff.Pause(s.ctx, delay) != nil {
				continue
			}
			_, confirmed := s.positions.status()
			conn, _, err = s.openReplication(s.ctx, confirmed)
			var wrong *InvalidError
			if errors.As(err, &wrong) && wrong.Field == FieldPublications { // it existed when the stream was opened
				err = &ResyncError{Slot: s.config.Slot, Reason: PublicationMissing, Detail: fmt.Sprintf("publication %q was dropped", wrong.Value)}
			}
		}
		s.counters.reconnects.Add(1)
	}
}

// readConnection reads from one connection until it is lost.
func (s *Stream) readConnection(conn *connection, retry *backoff.Backoff) error {
	r := &streamReader{stream: s, conn: conn}
	r.assembler = assembler{
		memoryLimit: s.config.MemoryLimit / 2, spillLimit: s.config.SpillLimit, folder: s.config.SpillFolder,
		decoder: newDecoder(), resumeAfter: s.positions.received, streamed: map[uint32]*Transaction{},
		addSpilled: s.spilled.Add, emit: r.emitTransaction,
		onEmpty:        func(end LSN) { s.positions.noteServerPosition(end, false) },
		isOwnWatermark: s.backfills.isOwnWatermark, onHeartbeat: s.receiveHeartbeat,
	}
	r.assembler.decoder.schemas, r.assembler.decoder.isRaw, r.assembler.decoder.skip = s.schemas, conn.isRaw, s.skipUndecodable
	defer r.assembler.discardIncomplete()
	s.conn.Store(conn)
	defer s.conn.Store(nil)
	s.isWoken.Store(true)
	r.lastReceived = time.Now()
	for {
		if s.isWoken.Load() || time.Now().After(r.statusDue) {
			if err := r.sendDueStatus(); err != nil {
				return err
			}
			if err := r.emitEmptyTransaction(); err != nil {
				return err
			}
		}
		message, err := conn.ReceiveMessage(context.Background())
		switch {
		case pgconn.Timeout(err):
			if silent := time.Since(r.lastReceived); silent > s.config.Timeout {
				return fmt.Errorf("cdc: the server was silent for %s", silent)
			}
			s.isWoken.Store(true)
			continue
		case err != nil:
			return fmt.Errorf("cdc: reading: %w", err)
		}
		r.lastReceived = time.Now()
		conn.gatherer.countMessage(r.lastReceived)
		if err := r.handleMessage(message); err != nil {
			return err
		}
		retry.Reset()
	}
}
