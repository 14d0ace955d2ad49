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
type consumerState struct {
	name   string
	reader *Consumer // nil while nobody reads
	isLost bool
	// next is the part to be read, and kept the first one that is kept for it: the one after what it has acknowledged.
	nextPart, firstKept int
	acknowledged        LSN
	resumeAfter         LSN // what it has, and has not come yet; zero otherwise
	isWaiting           bool
	isRemoved           bool
	hasGap              bool       // that which follows acknowledged is kept: another one had to go on
	delivered           []delivery // and not acknowledged
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
	state  *consumerState
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
	return f.attachConsumer(name, func(c *consumerState) error {
		switch {
		case c.isLost:
			return f.cutError(c)
		case after != 0 && after < c.acknowledged:
			return &ResyncError{
				Slot: f.config.Slot, Reason: ConsumerCut,
				Detail: fmt.Sprintf("consumer %q has acknowledged %s, which is behind %s, and what is between them does not come again", c.name, c.acknowledged, after),
			}
		}
		c.nextPart, c.resumeAfter = c.firstKept, 0
		if after > c.acknowledged {
			c.resumeAfter = after
		}
		return nil
	})
}

// Join begins to read as one of the consumers with the transactions that come from now on, and leaves out what it has missed: for one that starts over.
// [Fanout.Backfill] then has it read what is in a table. It fails as [Fanout.Attach] does, but never with [ErrResyncNeeded].
func (f *Fanout) Join(name string) (*Consumer, error) {
	return f.attachConsumer(name, func(c *consumerState) error {
		c.isLost, c.resumeAfter, c.acknowledged = false, 0, f.lastEnd
		c.nextPart, c.firstKept = f.endNumber(), f.endNumber()
		return nil
	})
}

func (f *Fanout) attachConsumer(name string, place func(*consumerState) error) (*Consumer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.consumers[name]
	switch {
	case c == nil:
		return nil, f.requireConsumer(name)
	case c.reader != nil:
		return nil, ErrConsumerBusy
	case f.err != nil:
		return nil, f.err
	}
	if err := place(c); err != nil {
		return nil, err
	}
	c.delivered, c.isWaiting, c.hasGap = nil, false, false
	c.reader = &Consumer{fanout: f, state: c, closed: make(chan struct{})}
	f.confirmLowest()
	f.notifyAll()
	return c.reader, nil
}

func (f *Fanout) cutError(c *consumerState) error {
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
		c.reader, c.isWaiting = nil, false
		if c.hasGap {
			c.isLost = true
			r.fanout.confirmLowest()
		}
		r.fanout.notifyAll()
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
		number := c.nextPart
		p, err := r.takePart(ctx)
		if err != nil {
			return nil, err
		}
		if !p.isFirst {
			continue
		}
		if !r.isProcessed(p) {
			c.delivered = append(c.delivered, delivery{p.transaction.EndLSN, number})
			return r.buildTransaction(p), nil
		}
		if len(c.delivered) == 0 && p.transaction.EndLSN == c.acknowledged {
			c.acknowledge(p.transaction.EndLSN, f.partAfter(number))
			f.confirmLowest()
			f.notifyAll()
		}
	}
}

// isProcessed reports whether the consumer has a transaction already. Nothing counts as acknowledged for it until the one comes that it has named. That may
// be none which comes again, because it had no changes: then the first one behind it is where the consumer goes on.
func (r *Consumer) isProcessed(p *part) bool {
	c := r.state
	if c.resumeAfter == 0 || p.transaction.EndLSN > c.resumeAfter {
		c.resumeAfter = 0
		return false
	}
	if p.transaction.EndLSN == c.resumeAfter {
		c.acknowledged, c.resumeAfter = c.resumeAfter, 0
	}
	return true
}

// isFor reports whether a consumer gets the changes of a transaction: not those of a backfill for another one.
func (t *Transaction) isFor(consumer string) bool {
	return t.Backfill == nil || t.Backfill.config.consumer == "" || t.Backfill.config.consumer == consumer
}

// takePart waits for the next part, with mu held.
func (r *Consumer) takePart(ctx context.Context) (*part, error) {
	f, c := r.fanout, r.state
	defer func() {
		if c.reader == r { // or another one may wait by now
			c.isWaiting = false
		}
	}()
	for {
		select {
		case <-r.closed:
			return nil, ErrClosed
		default:
		}
		switch {
		case c.isRemoved:
			return nil, ErrConsumerRemoved
		case c.isLost:
			return nil, f.cutError(c)
		case c.nextPart < f.endNumber():
			p := f.parts[c.nextPart-f.first]
			c.nextPart++
			if !p.isFirst && len(c.delivered) == 0 && c.resumeAfter == 0 {
				c.firstKept = max(c.firstKept, c.nextPart) // the rest of one that was acknowledged meanwhile
				f.notifyAll()
			}
			return p, nil
		case f.err != nil:
			return nil, f.err
		}
		if !c.isWaiting {
			c.isWaiting = true
			f.notifyAll() // the reader may wait for room that this one is given
		}
		if err := f.waitForChange(ctx, r.closed, -1); err != nil {
			return nil, err
		}
	}
}

// buildTransaction is one whose changes come part by part.
func (r *Consumer) buildTransaction(p *part) *Transaction {
	t := *p.transaction
	if !t.isFor(r.state.name) { // its end is a position like any other
		t.Backfill, t.BackfillEnds, t.nextChanges = nil, false, func() ([]*Change, error) { return nil, io.EOF }
		return &t
	}
	t.pending = p.changes
	next, ended := r.state.nextPart, p.isLast
	t.nextChanges = func() ([]*Change, error) {
		r.fanout.mu.Lock()
		defer r.fanout.mu.Unlock()
		switch {
		case ended:
			return nil, io.EOF
		case r.state.reader != r:
			return nil, ErrClosed // another reader has begun again, and next is its
		case r.state.nextPart != next: // the transaction after it was taken
			return nil, io.EOF
		}
		p, err := r.takePart(context.Background())
		if err != nil {
			return nil, err
		}
		next, ended = r.state.nextPart, p.isLast
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
	case c.isRemoved:
		return ErrConsumerRemoved
	case c.reader != r:
		return ErrClosed
	case c.isLost:
		return f.cutError(c)
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
	c.acknowledge(lsn, f.partAfter(c.delivered[i].part))
	c.delivered = c.delivered[i+1:]
	f.confirmLowest()
	f.notifyAll()
	return nil
}

// acknowledge moves the position. following is the first part behind it.
func (c *consumerState) acknowledge(lsn LSN, following int) {
	c.hasGap = c.hasGap && following < c.firstKept
	c.acknowledged, c.firstKept = lsn, max(c.firstKept, following)
}

// partAfter is the number of the part that follows a transaction, as far as it has come.
func (f *Fanout) partAfter(begin int) int {
	i := max(begin+1, f.first)
	for i < f.endNumber() && !f.parts[i-f.first].isFirst {
		i++
	}
	return i
}
