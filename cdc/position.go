package cdc

import (
	"sort"
	"sync"
	"time"
)

// commit is an unacknowledged transaction.
type commit struct {
	end  LSN
	time time.Time
}

// positions tracks what was received, delivered and acknowledged. It alone decides which positions the server is told.
type positions struct {
	mu sync.Mutex
	// unacknowledged are the received and unacknowledged transactions, in order. Next has returned the first delivered ones.
	unacknowledged []commit
	delivered      int
	// acknowledged is the end of the last acknowledged transaction, and lastDelivered that of the last delivered one.
	acknowledged, lastDelivered LSN
	// confirmed is the position before which the server may remove WAL. It is ahead of acknowledged if nothing waits
	// for an acknowledgement.
	confirmed LSN
	// received is the end of the last transaction that has arrived, and server the position up to which the server has
	// read.
	received, server LSN
	// complete is a position up to which all transactions have arrived.
	complete LSN
	// onlyAcknowledged makes confirmed follow acknowledgements only.
	onlyAcknowledged bool
}

func (p *positions) start(at LSN, strict bool) {
	p.onlyAcknowledged, p.complete = strict, at
	p.acknowledged, p.lastDelivered, p.confirmed, p.received, p.server = at, at, at, at, at
}

// noteReceived records a transaction that has arrived.
func (p *positions) noteReceived(t *Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacknowledged = append(p.unacknowledged, commit{t.EndLSN, t.CommitTime})
	p.received = t.EndLSN
	p.server = max(p.server, t.EndLSN)
}

// noteEmpty records a transaction that has arrived and needs no acknowledgement.
func (p *positions) noteEmpty(end LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received = end
	p.server = max(p.server, end)
	p.advanceConfirmed(end)
}

// advanceConfirmed moves the confirmed position if nothing waits for an acknowledgement.
func (p *positions) advanceConfirmed(to LSN) {
	p.complete = max(p.complete, to)
	if len(p.unacknowledged) == 0 && !p.onlyAcknowledged {
		p.confirmed = max(p.confirmed, to)
	}
}

// idlePosition returns a position that can be acknowledged although nothing was delivered since the last one. ok
// reports whether there is such a position.
func (p *positions) idlePosition() (at LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.complete, p.onlyAcknowledged && len(p.unacknowledged) == 0 && p.complete > max(p.acknowledged, p.received)
}

// dropLastReceived undoes the last noteReceived, for a transaction that could not be queued.
func (p *positions) dropLastReceived(before LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacknowledged, p.received = p.unacknowledged[:len(p.unacknowledged)-1], before
}

// noteDelivered records that Next has returned the next transaction.
func (p *positions) noteDelivered(t *Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered++
	p.lastDelivered = t.EndLSN
}

// undeliveredEnd returns the end of the last transaction that waits for Next, zero if none does.
func (p *positions) undeliveredEnd() LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delivered == len(p.unacknowledged) {
		return 0
	}
	return p.unacknowledged[len(p.unacknowledged)-1].end
}

// deliveredEnd returns the end of the last transaction that Next has returned.
func (p *positions) deliveredEnd() LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastDelivered
}

// acknowledge confirms everything up to the end of a delivered transaction.
func (p *positions) acknowledge(lsn LSN) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lsn == p.acknowledged {
		return nil
	}
	i := sort.Search(p.delivered, func(i int) bool { return p.unacknowledged[i].end >= lsn })
	if i == p.delivered || p.unacknowledged[i].end != lsn {
		return &AckError{LSN: lsn, Acknowledged: p.acknowledged, Delivered: p.lastDelivered}
	}
	for i+1 < p.delivered && p.unacknowledged[i+1].end == lsn {
		i++
	}
	p.unacknowledged = p.unacknowledged[i+1:]
	p.delivered -= i + 1
	p.acknowledged, p.confirmed = lsn, max(p.confirmed, lsn)
	return nil
}

// noteServerPosition records how far the server has read. If nothing waits, the log before that position holds nothing
// to lose. inside reports whether a part of a transaction has arrived.
func (p *positions) noteServerPosition(to LSN, inside bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = max(p.server, to)
	if !inside {
		p.advanceConfirmed(to)
	}
}

// rewind goes back to the end of a log that the server does not have beyond. It fails if a transaction after it was
// received.
func (p *positions) rewind(to LSN) (received LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.received > to {
		return p.received, false
	}
	p.confirmed, p.server, p.complete = min(p.confirmed, to), min(p.server, to), min(p.complete, to)
	return p.received, true
}

// status returns the positions to report to the server.
func (p *positions) status() (written, confirmed LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.server, p.confirmed), p.confirmed
}
