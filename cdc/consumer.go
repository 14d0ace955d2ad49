package cdc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
)

// ErrConsumerBusy reports that another reader is attached to a consumer of a [Fanout].
var ErrConsumerBusy = errors.New("cdc: the consumer is attached already")

// ErrConsumerRemoved reports a consumer that [Fanout.Remove] has removed while it was being read.
var ErrConsumerRemoved = errors.New("cdc: the consumer was removed")

// ConsumerCut is a consumer for which a [Fanout] no longer keeps changes.
const ConsumerCut ResyncReason = "cut"

// consumerState is the state of one consumer of a [Fanout]. Fanout.mu guards it.
type consumerState struct {
	name   string
	reader *Consumer // nil while detached
	isLost bool
	// nextPart is the next part to read, and firstKept the first one kept for the consumer: the one after its last
	// acknowledged transaction.
	nextPart, firstKept int
	acknowledged        LSN
	resumeAfter         LSN // it has processed transactions up to here, which may come again; zero otherwise
	isWaiting           bool
	isRemoved           bool
	hasGap              bool       // parts after acknowledged were dropped, so that another consumer could continue
	delivered           []delivery // delivered and not acknowledged
}

// delivery is a transaction that Next has returned.
type delivery struct {
	end  LSN
	part int // its first part
}

// Consumer reads the transactions of a [Fanout] at its own position. Next is for one goroutine at a time; Ack and Close
// may be called by any goroutine at any time.
type Consumer struct {
	fanout *Fanout
	state  *consumerState
	once   sync.Once
	closed chan struct{}
}

// Attach starts to read as one of the consumers. after is the end of the last transaction that the consumer has
// processed; 0 means the last one that it has acknowledged. The result must be closed.
//
// A Fanout does not remember after a restart that a consumer was cut. If the consumer gives after, Attach finds the gap
// and fails with [ErrResyncNeeded]. If it gives 0, it continues at the slot's position and misses the changes in
// between.
//
// Attach fails with an [*InvalidError] for an unknown name, with [ErrConsumerBusy], with [ErrClosed], with the error
// that has ended the stream, and with [ErrResyncNeeded] if the changes after the position are no longer kept.
func (f *Fanout) Attach(name string, after LSN) (*Consumer, error) {
	return f.attachConsumer(name, func(c *consumerState) error {
		switch {
		case c.isLost:
			return f.cutError(c)
		case after != 0 && after < c.acknowledged:
			return &ResyncError{
				Slot: f.config.Slot, Reason: ConsumerCut,
				Detail: fmt.Sprintf("consumer %q has acknowledged %s, which is after %s, and the changes in between are not delivered again", c.name, c.acknowledged, after),
			}
		}
		c.nextPart, c.resumeAfter = c.firstKept, 0
		if after > c.acknowledged {
			c.resumeAfter = after
		}
		return nil
	})
}

// Join starts to read as one of the consumers, from the next transaction on, and skips everything that the consumer has
// missed. It is for a consumer that starts over; [Fanout.Backfill] then gives it the rows of a table. It fails as
// [Fanout.Attach] does, but never with [ErrResyncNeeded].
func (f *Fanout) Join(name string) (*Consumer, error) {
	return f.attachConsumer(name, func(c *consumerState) error {
		c.isLost, c.resumeAfter, c.acknowledged = false, 0, f.lastEnd
		c.nextPart, c.firstKept = f.endNumber(), f.endNumber()
		return nil
	})
}

func (f *Fanout) attachConsumer(name string, setPosition func(*consumerState) error) (*Consumer, error) {
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
	if err := setPosition(c); err != nil {
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
		Detail: fmt.Sprintf("consumer %q was too far behind, and changes after %s are no longer kept for it: Join, and read the tables again", c.name, c.acknowledged),
	}
}

// Close detaches the consumer, so that another reader can attach. It then gets unacknowledged transactions again. Close
// may be called more than once.
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

// Next waits for the next transaction. Its changes are shared with other consumers and must not be modified. Changes of
// the previous transaction that were not read are skipped. It fails with the context's error, with [ErrClosed], with
// [ErrResyncNeeded] for a consumer that was cut, or, after all transactions before, with the error that has ended the
// stream.
//
// Now and then a transaction has no changes, for example on a quiet database or after a chunk of another consumer's
// backfill. Acknowledge and store its position like any other. Reading the changes of a large transaction may wait for
// the server. Close ends that wait, but the context does not.
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

// isProcessed reports whether the consumer has already processed a transaction. Nothing counts as acknowledged until
// the transaction that the consumer has named arrives. That one may never come again, because it had no changes; then
// the consumer continues with the first transaction after it.
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

// isFor reports whether a consumer gets the changes of a transaction, which is false for a backfill of another
// consumer.
func (t *Transaction) isFor(consumer string) bool {
	return t.Backfill == nil || t.Backfill.config.consumer == "" || t.Backfill.config.consumer == consumer
}

// takePart waits for the next part. f.mu must be held.
func (r *Consumer) takePart(ctx context.Context) (*part, error) {
	f, c := r.fanout, r.state
	defer func() {
		if c.reader == r { // otherwise another reader may be waiting by now
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
				c.firstKept = max(c.firstKept, c.nextPart) // the rest of a transaction that was acknowledged meanwhile
				f.notifyAll()
			}
			return p, nil
		case f.err != nil:
			return nil, f.err
		}
		if !c.isWaiting {
			c.isWaiting = true
			f.notifyAll() // the stream's reader may be waiting for a reason to drop a part
		}
		if err := f.waitForChange(ctx, r.closed, -1); err != nil {
			return nil, err
		}
	}
}

// buildTransaction returns a transaction that reads its changes part by part.
func (r *Consumer) buildTransaction(p *part) *Transaction {
	t := *p.transaction
	if !t.isFor(r.state.name) { // delivered for its position only
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
			return nil, ErrClosed // another reader is attached, and nextPart belongs to it
		case r.state.nextPart != next: // Next has moved on to another transaction
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

// Ack confirms that this consumer has processed a transaction and all before it. lsn is the EndLSN of a transaction
// that Next has returned; the last one may be acknowledged again. Any other position is an [*AckError].
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

// acknowledge moves the acknowledged position. following is the first part after it.
func (c *consumerState) acknowledge(lsn LSN, following int) {
	c.hasGap = c.hasGap && following < c.firstKept
	c.acknowledged, c.firstKept = lsn, max(c.firstKept, following)
}

// partAfter returns the number of the first part after a transaction, or endNumber if it is still arriving.
func (f *Fanout) partAfter(begin int) int {
	i := max(begin+1, f.first)
	for i < f.endNumber() && !f.parts[i-f.first].isFirst {
		i++
	}
	return i
}
