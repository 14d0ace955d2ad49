package cdc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
)

// ErrConsumerBusy is a consumer of a [Fanout] that somebody else reads as at the moment.
var ErrConsumerBusy = errors.New("cdc: the consumer is attached already")

// ErrConsumerRemoved is a consumer that [Fanout.Remove] has removed while it read.
var ErrConsumerRemoved = errors.New("cdc: the consumer was removed")

// ConsumerCut is a consumer that a [Fanout] does not keep the changes for any more.
const ConsumerCut ResyncReason = "cut"

// consumer is where one of a [Fanout] stands. The fan-out's mu guards it.
type consumer struct {
	name   string
	reader *Consumer // nil while nobody reads
	lost   bool
	// next is the part to be read, and kept the first one that is kept for it: the one after what it has acknowledged.
	next, kept   int
	acknowledged LSN
	resume       LSN // what it has, and has not come yet; zero otherwise
	waiting      bool
	removed      bool
	forgot       bool       // that which follows acknowledged is kept: another one had to go on
	delivered    []delivery // and not acknowledged
}

// delivery is a transaction that was handed out.
type delivery struct {
	end  LSN
	part int // the first one of it
}

// Consumer reads the transactions of a [Fanout] at a position of its own. Next is for one goroutine at a time; Ack and Close can be called by
// any at any time.
type Consumer struct {
	fanout *Fanout
	state  *consumer
	once   sync.Once
	closed chan struct{}
}

// Attach begins to read as one of the consumers. After is the end of the last transaction that it has processed; 0: the last that it has
// acknowledged. It must be closed.
//
// That a consumer was cut is not known after a restart. One that gives After finds out, with [ErrResyncNeeded]. One that gives 0 goes on where the
// slot is, and misses what is between.
//
// It fails with an [*InvalidError] for an unknown name, with [ErrConsumerBusy], with [ErrClosed], with what has ended the stream, and with
// [ErrResyncNeeded] where what follows is not kept any more.
func (f *Fanout) Attach(name string, after LSN) (*Consumer, error) {
	return f.attach(name, func(c *consumer) error {
		switch {
		case c.lost:
			return f.cut(c)
		case after != 0 && after < c.acknowledged:
			return &ResyncError{
				Slot: f.config.Slot, Reason: ConsumerCut,
				Detail: fmt.Sprintf("consumer %q has acknowledged %s, which is behind %s, and what is between them does not come again", c.name, c.acknowledged, after),
			}
		}
		c.next, c.resume = c.kept, 0
		if after > c.acknowledged {
			c.resume = after
		}
		return nil
	})
}

// Join begins to read as one of the consumers with the transactions that come from now on, and leaves out what it has missed: for one that starts over.
// [Fanout.Backfill] then has it read what is in a table. It fails as [Fanout.Attach] does, but never with [ErrResyncNeeded].
func (f *Fanout) Join(name string) (*Consumer, error) {
	return f.attach(name, func(c *consumer) error {
		c.lost, c.resume, c.acknowledged = false, 0, f.last
		c.next, c.kept = f.end(), f.end()
		return nil
	})
}

func (f *Fanout) attach(name string, place func(*consumer) error) (*Consumer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.consumers[name]
	switch {
	case c == nil:
		return nil, f.unknown(name)
	case c.reader != nil:
		return nil, ErrConsumerBusy
	case f.err != nil:
		return nil, f.err
	}
	if err := place(c); err != nil {
		return nil, err
	}
	c.delivered, c.waiting, c.forgot = nil, false, false
	c.reader = &Consumer{fanout: f, state: c, closed: make(chan struct{})}
	f.confirm()
	f.broadcast()
	return c.reader, nil
}

func (f *Fanout) cut(c *consumer) error {
	return &ResyncError{
		Slot: f.config.Slot, Reason: ConsumerCut,
		Detail: fmt.Sprintf("consumer %q was too far behind, and what follows %s is not kept for it: Join, and read the tables again", c.name, c.acknowledged),
	}
}

// Close lets go of the consumer; another one can attach. What it has not acknowledged comes again then. It can be called more than once.
func (r *Consumer) Close() {
	r.once.Do(func() {
		close(r.closed)
		r.fanout.mu.Lock()
		defer r.fanout.mu.Unlock()
		c := r.state
		c.reader, c.waiting = nil, false
		if c.forgot {
			c.lost = true
			r.fanout.confirm()
		}
		r.fanout.broadcast()
	})
}

// Next waits for the next transaction. Its changes are shared with the other consumers, and must not be modified. It fails with the context's
// error, with [ErrClosed], with [ErrResyncNeeded] for a consumer that was too far behind, or with what has ended the stream, after all
// that came before. What is left unread of the transaction before is passed over.
//
// Transactions without changes come now and then, to be acknowledged and kept like others: where nothing else happens, and where another consumer's
// backfill has read something. The changes of a large transaction may have to be waited for: Close ends that, and the context does not.
func (r *Consumer) Next(ctx context.Context) (*Transaction, error) {
	f, c := r.fanout, r.state
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		number := c.next
		p, err := r.take(ctx)
		if err != nil {
			return nil, err
		}
		if !p.begins {
			continue
		}
		if !r.skips(p) {
			c.delivered = append(c.delivered, delivery{p.of.EndLSN, number})
			return r.transaction(p), nil
		}
		if len(c.delivered) == 0 && p.of.EndLSN == c.acknowledged {
			c.acknowledge(p.of.EndLSN, f.after(number))
			f.confirm()
			f.broadcast()
		}
	}
}

// skips reports whether the consumer has a transaction already. Nothing counts as acknowledged for it until the one comes that it has named. That may
// be none which comes again, because it had no changes: then the first one behind it is where the consumer goes on.
func (r *Consumer) skips(p *part) bool {
	c := r.state
	if c.resume == 0 || p.of.EndLSN > c.resume {
		c.resume = 0
		return false
	}
	if p.of.EndLSN == c.resume {
		c.acknowledged, c.resume = c.resume, 0
	}
	return true
}

// isFor reports whether a consumer gets the changes of a transaction: not those of a backfill for another one.
func (t *Transaction) isFor(consumer string) bool {
	return t.Backfill == nil || t.Backfill.config.consumer == "" || t.Backfill.config.consumer == consumer
}

// take waits for the next part, with mu held.
func (r *Consumer) take(ctx context.Context) (*part, error) {
	f, c := r.fanout, r.state
	defer func() {
		if c.reader == r { // or another one may wait by now
			c.waiting = false
		}
	}()
	for {
		select {
		case <-r.closed:
			return nil, ErrClosed
		default:
		}
		switch {
		case c.removed:
			return nil, ErrConsumerRemoved
		case c.lost:
			return nil, f.cut(c)
		case c.next < f.end():
			p := f.parts[c.next-f.first]
			c.next++
			if !p.begins && len(c.delivered) == 0 && c.resume == 0 {
				c.kept = max(c.kept, c.next) // the rest of one that was acknowledged meanwhile
				f.broadcast()
			}
			return p, nil
		case f.err != nil:
			return nil, f.err
		}
		if !c.waiting {
			c.waiting = true
			f.broadcast() // the reader may wait for room that this one is given
		}
		if err := f.wait(ctx, r.closed, -1); err != nil {
			return nil, err
		}
	}
}

// transaction is one whose changes come part by part.
func (r *Consumer) transaction(p *part) *Transaction {
	t := *p.of
	if !t.isFor(r.state.name) { // its end is a position like any other
		t.Backfill, t.BackfillEnds, t.more = nil, false, func() ([]*Change, error) { return nil, io.EOF }
		return &t
	}
	t.pending = p.changes
	next, ended := r.state.next, p.ends
	t.more = func() ([]*Change, error) {
		r.fanout.mu.Lock()
		defer r.fanout.mu.Unlock()
		switch {
		case ended:
			return nil, io.EOF
		case r.state.reader != r:
			return nil, ErrClosed // another reader has begun again, and next is its
		case r.state.next != next: // the transaction after it was taken
			return nil, io.EOF
		}
		p, err := r.take(context.Background())
		if err != nil {
			return nil, err
		}
		next, ended = r.state.next, p.ends
		return p.changes, nil
	}
	return &t
}

// Ack confirms that a transaction and all before it were processed by this consumer. It takes the EndLSN of a transaction that Next has
// returned; the last one may be acknowledged again. Anything else is an [*AckError].
func (r *Consumer) Ack(lsn LSN) error {
	f, c := r.fanout, r.state
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case c.removed:
		return ErrConsumerRemoved
	case c.reader != r:
		return ErrClosed
	case c.lost:
		return f.cut(c)
	case lsn == c.acknowledged && (len(c.delivered) == 0 || c.delivered[0].end != lsn):
		return nil
	}
	i := sort.Search(len(c.delivered), func(i int) bool { return c.delivered[i].end >= lsn })
	if i == len(c.delivered) || c.delivered[i].end != lsn {
		last := c.acknowledged
		if n := len(c.delivered); n > 0 {
			last = c.delivered[n-1].end
		}
		return &AckError{LSN: lsn, Acknowledged: c.acknowledged, Delivered: last}
	}
	for i+1 < len(c.delivered) && c.delivered[i+1].end == lsn {
		i++
	}
	c.acknowledge(lsn, f.after(c.delivered[i].part))
	c.delivered = c.delivered[i+1:]
	f.confirm()
	f.broadcast()
	return nil
}

// acknowledge moves the position. following is the first part behind it.
func (c *consumer) acknowledge(lsn LSN, following int) {
	c.forgot = c.forgot && following < c.kept
	c.acknowledged, c.kept = lsn, max(c.kept, following)
}

// after is the number of the part that follows a transaction, as far as it has come.
func (f *Fanout) after(begin int) int {
	i := max(begin+1, f.first)
	for i < f.end() && !f.parts[i-f.first].begins {
		i++
	}
	return i
}
