package cdc

import (
	"sort"
	"sync"
	"time"
)

// commit is a transaction that waits for its acknowledgement.
type commit struct {
	end  LSN
	time time.Time
}

// positions knows what was received, delivered and acknowledged. Only it decides what the server is told.
type positions struct {
	mu sync.Mutex
	// waiting are the transactions that were received and not acknowledged, in order; the first delivered of them were
	// handed out.
	unacknowledged []commit
	delivered      int
	// acknowledged is the end of the last transaction that was; last is that of the last one that was handed out.
	acknowledged, lastDelivered LSN
	// confirmed is what the server may forget. It is ahead of acknowledged where nothing waits.
	confirmed LSN
	// received is the end of the last transaction that came, and server how far the server has read.
	received, server LSN
	// behind is where all that has committed before has come.
	complete LSN
	// strict has confirmed follow acknowledgements only.
	onlyAcknowledged bool
}

func (p *positions) start(at LSN, strict bool) {
	p.onlyAcknowledged, p.complete = strict, at
	p.acknowledged, p.lastDelivered, p.confirmed, p.received, p.server = at, at, at, at, at
}

// noteReceived notes a transaction that came.
func (p *positions) noteReceived(t *Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacknowledged = append(p.unacknowledged, commit{t.EndLSN, t.CommitTime})
	p.received = t.EndLSN
	p.server = max(p.server, t.EndLSN)
}

// noteEmpty notes a transaction that came and that nobody has to acknowledge.
func (p *positions) noteEmpty(end LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received = end
	p.server = max(p.server, end)
	p.advanceConfirmed(end)
}

// advanceConfirmed moves what is confirmed where nobody has to acknowledge anything first.
func (p *positions) advanceConfirmed(to LSN) {
	p.complete = max(p.complete, to)
	if len(p.unacknowledged) == 0 && !p.onlyAcknowledged {
		p.confirmed = max(p.confirmed, to)
	}
}

// idlePosition is a position that can be acknowledged because nothing was delivered since the last one; ok tells that there is one.
func (p *positions) idlePosition() (at LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.complete, p.onlyAcknowledged && len(p.unacknowledged) == 0 && p.complete > max(p.acknowledged, p.received)
}

// dropLastReceived takes back the last one that was received, which could not be handed on.
func (p *positions) dropLastReceived(before LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacknowledged, p.received = p.unacknowledged[:len(p.unacknowledged)-1], before
}

// noteDelivered notes that the next one was handed out.
func (p *positions) noteDelivered(t *Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered++
	p.lastDelivered = t.EndLSN
}

// undeliveredEnd is the end of the last transaction that came and waits for Next, zero where none does.
func (p *positions) undeliveredEnd() LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delivered == len(p.unacknowledged) {
		return 0
	}
	return p.unacknowledged[len(p.unacknowledged)-1].end
}

// deliveredEnd is the end of the last transaction that Next has returned.
func (p *positions) deliveredEnd() LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastDelivered
}

// acknowledge confirms all that was delivered up to the end of a transaction.
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

// noteServerPosition notes how far the server has read. Where nothing waits, there is nothing before it that could be lost. inside
// tells of a transaction that has come in part.
func (p *positions) noteServerPosition(to LSN, inside bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = max(p.server, to)
	if !inside {
		p.advanceConfirmed(to)
	}
}

// rewind goes back to where a log ends that the server has no more of. What was received must be before it.
func (p *positions) rewind(to LSN) (received LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.received > to {
		return p.received, false
	}
	p.confirmed, p.server, p.complete = min(p.confirmed, to), min(p.server, to), min(p.complete, to)
	return p.received, true
}

// status is what the server is told.
func (p *positions) status() (written, confirmed LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.server, p.confirmed), p.confirmed
}
