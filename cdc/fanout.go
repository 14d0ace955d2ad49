package cdc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Fanout lets several consumers read one slot. The changes are received and decoded once. Each consumer has its own
// position, and may be detached for as long as the changes that it misses fit into the buffer. The slot is confirmed up
// to the slowest consumer. After a restart of the process, everything unconfirmed comes from the slot again, and each
// consumer continues at the position that it has stored.
//
// If the buffer is full because one consumer is behind, while another one waits, the slow one is cut after
// SlowConsumerTimeout: it gets [ErrResyncNeeded], and the slot no longer waits for it. It starts over with
// [Fanout.Join], and [Fanout.Backfill] for the rows of the tables. While all consumers are behind or detached, none is
// cut: the stream waits, and Postgres keeps the rest, as for any slot.
//
// All methods may be called by any goroutine.
type Fanout struct {
	config FanoutConfig
	stream *Stream
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	parts []*part // those that a consumer may still need
	first int     // the number of parts[0]; each part has the next number
	size  int64   // of parts
	// lastEnd is the end of the last transaction in parts, or before them; confirmed is the last position acknowledged to
	// the stream.
	lastEnd, confirmed LSN
	consumers          map[string]*consumerState
	pressedSince       time.Time // since when a full buffer has blocked a waiting consumer; zero while it does not
	lastFull           time.Time // when the buffer was last full
	err                error     // the reason why reading has ended
	changed            chan struct{}
}

// OpenFanout connects and starts to read. It fails with an [*InvalidError], and as [Open] does. The result must be
// closed.
func OpenFanout(ctx context.Context, config FanoutConfig) (*Fanout, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	stream, err := Open(ctx, config.Config)
	if err != nil {
		return nil, err
	}
	at := stream.positions.deliveredEnd()
	f := &Fanout{
		config: config, stream: stream, done: make(chan struct{}), lastEnd: at, confirmed: at,
		consumers: map[string]*consumerState{}, changed: make(chan struct{}),
	}
	for _, name := range config.Consumers {
		f.consumers[name] = &consumerState{name: name, acknowledged: at}
	}
	reading, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go f.readStream(reading)
	return f, nil
}

// Close sends the last acknowledgements to the server and stops reading. It may be called more than once.
func (f *Fanout) Close() {
	f.cancel()
	<-f.done
	f.stream.Close()
}

// Stats returns the stream's figures.
func (f *Fanout) Stats() Stats { return f.stream.Stats() }

// readStream reads transactions until the stream ends, and stores why it has.
func (f *Fanout) readStream(ctx context.Context) {
	defer close(f.done)
	err := f.readTransactions(ctx)
	if ctx.Err() != nil {
		err = ErrClosed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	f.notifyAll()
}

func (f *Fanout) readTransactions(ctx context.Context) error {
	for {
		t, err := f.stream.Next(ctx)
		if err != nil {
			return err
		}
		p := &part{transaction: t.copyHeader(), isFirst: true}
		for change, err := range t.Changes() {
			if err != nil {
				return err
			}
			if p.size >= maxPartSize {
				if err := f.addPart(ctx, p); err != nil {
					return err
				}
				p = &part{transaction: p.transaction}
			}
			p.changes = append(p.changes, change)
			p.size += change.memorySize()
		}
		p.isLast = true
		if err := f.addPart(ctx, p); err != nil {
			return err
		}
	}
}

// copyHeader returns a copy without changes.
func (t *Transaction) copyHeader() *Transaction {
	return &Transaction{
		XID: t.XID, CommitLSN: t.CommitLSN, EndLSN: t.EndLSN, CommitTime: t.CommitTime, Origin: t.Origin, OriginLSN: t.OriginLSN,
		Size: t.Size, Spilled: t.Spilled, Backfill: t.Backfill, BackfillEnds: t.BackfillEnds,
	}
}

// Backfill starts to read a table beside the stream, as [Stream.Backfill] does, for one consumer; the others do not get
// its rows. It cannot be continued after a restart, so start a new one then.
//
// It fails as [Stream.Backfill] does, and with an [*InvalidError] for an unknown consumer or if a Token is given.
func (f *Fanout) Backfill(ctx context.Context, consumer string, config BackfillConfig) (*Backfill, error) {
	f.mu.Lock()
	err := f.requireConsumer(consumer)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if config.Token != "" {
		return nil, newInvalidError(FieldToken, config.Token, "none, for a backfill of one consumer")
	}
	config.consumer = consumer
	return f.stream.Backfill(ctx, config)
}

// Add adds a consumer, for which changes are kept from now on; [Fanout.Join] and [Fanout.Backfill] give it the rows of
// before. It fails with an [*InvalidError] if the name exists, and for more than 100 consumers.
func (f *Fanout) Add(name string) error {
	if err := validateName(FieldConsumers, name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.consumers[name] != nil:
		return newInvalidError(FieldConsumers, name, "each name once")
	case len(f.consumers) == maxConsumers:
		return newInvalidError(FieldConsumers, maxConsumers+1, "1 to 100 names")
	}
	f.consumers[name] = &consumerState{name: name, acknowledged: f.lastEnd, nextPart: f.endNumber(), firstKept: f.endNumber()}
	f.notifyAll()
	return nil
}

// Remove forgets a consumer, so that the slot no longer waits for it. If it is attached, its reading ends with
// [ErrConsumerRemoved]. Without any consumers the slot stays where it is. It fails with an [*InvalidError] for an
// unknown name.
func (f *Fanout) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.requireConsumer(name); err != nil {
		return err
	}
	f.consumers[name].isRemoved = true
	delete(f.consumers, name)
	f.confirmLowest()
	f.notifyAll()
	return nil
}

// requireConsumer returns an error if no consumer has the name. f.mu must be held.
func (f *Fanout) requireConsumer(name string) error {
	if f.consumers[name] != nil {
		return nil
	}
	return newInvalidError(FieldConsumers, name, fmt.Sprintf("one of %q", slices.Sorted(maps.Keys(f.consumers))))
}
