package cdc

import (
	"sort"
	"sync"
	"time"
)

// commit is a transaction that waits for its acknowledgement.
type commit struct {
	end  LSN
	when time.Time
}

// positions knows what was received, delivered and acknowledged. Only it decides what the server is told.
type positions struct {
	mu sync.Mutex
	// waiting are the transactions that were received and not acknowledged, in order; the first delivered of them were
	// handed out.
	waiting   []commit
	delivered int
	// acknowledged is the end of the last transaction that was; last is that of the last one that was handed out.
	acknowledged, last LSN
	// confirmed is what the server may forget. It is ahead of acknowledged where nothing waits.
	confirmed LSN
	// received is the end of the last transaction that came, and server how far the server has read.
	received, server LSN
	// behind is where all that has committed before has come.
	behind LSN
	// strict has confirmed follow acknowledgements only.
	strict bool
}

func (p *positions) start(at LSN, strict bool) {
	p.strict, p.behind = strict, at
	p.acknowledged, p.last, p.confirmed, p.received, p.server = at, at, at, at, at
}

// receive notes a transaction that came.
func (p *positions) receive(t *Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, commit{t.EndLSN, t.CommitTime})
	p.received = t.EndLSN
	p.server = max(p.server, t.EndLSN)
}

// pass notes a transaction that came and that nobody has to acknowledge.
func (p *positions) pass(end LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received = end
	p.server = max(p.server, end)
	p.follow(end)
}

// follow moves what is confirmed where nobody has to acknowledge anything first.
func (p *positions) follow(to LSN) {
	p.behind = max(p.behind, to)
	if len(p.waiting) == 0 && !p.strict {
		p.confirmed = max(p.confirmed, to)
	}
}

// idle is a position that can be acknowledged because nothing was delivered since the last one; ok tells that there is one.
func (p *positions) idle() (at LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.behind, p.strict && len(p.waiting) == 0 && p.behind > max(p.acknowledged, p.received)
}

// forget takes back the last one that was received, which could not be handed on.
func (p *positions) forget(before LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.received = p.waiting[:len(p.waiting)-1], before
}

// deliver notes that the next one was handed out.
func (p *positions) deliver(t *Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered++
	p.last = t.EndLSN
}

// undelivered is the end of the last transaction that came and waits for Next, zero where none does.
func (p *positions) undelivered() LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delivered == len(p.waiting) {
		return 0
	}
	return p.waiting[len(p.waiting)-1].end
}

// delivery is the end of the last transaction that Next has returned.
func (p *positions) delivery() LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// acknowledge confirms all that was delivered up to the end of a transaction.
func (p *positions) acknowledge(lsn LSN) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lsn == p.acknowledged {
		return nil
	}
	i := sort.Search(p.delivered, func(i int) bool { return p.waiting[i].end >= lsn })
	if i == p.delivered || p.waiting[i].end != lsn {
		return &AckError{LSN: lsn, Acknowledged: p.acknowledged, Delivered: p.last}
	}
	for i+1 < p.delivered && p.waiting[i+1].end == lsn {
		i++
	}
	p.waiting = p.waiting[i+1:]
	p.delivered -= i + 1
	p.acknowledged, p.confirmed = lsn, max(p.confirmed, lsn)
	return nil
}

// advance notes how far the server has read. Where nothing waits, there is nothing before it that could be lost. inside
// tells of a transaction that has come in part.
func (p *positions) advance(to LSN, inside bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = max(p.server, to)
	if !inside {
		p.follow(to)
	}
}

// rewind goes back to where a log ends that the server has no more of. What was received must be before it.
func (p *positions) rewind(to LSN) (received LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.received > to {
		return p.received, false
	}
	p.confirmed, p.server, p.behind = min(p.confirmed, to), min(p.server, to), min(p.behind, to)
	return p.received, true
}

// status is what the server is told.
func (p *positions) status() (written, confirmed LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.server, p.confirmed), p.confirmed
}
