package cdc

import (
	"slices"
	"sync"
	"sync/atomic"
)

// backfills are the running backfills of a stream.
type backfills struct {
	mu      sync.Mutex
	running atomic.Pointer[[]*Backfill] // nil if there are none
	closed  bool
	begun   atomic.Bool // Next has returned a transaction
}

func (l *backfills) listRunning() []*Backfill {
	if running := l.running.Load(); running != nil {
		return *running
	}
	return nil
}

// add starts a backfill, unless one of its table is running for the same consumer of a [Fanout].
func (l *backfills) add(b *Backfill, start func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	for _, other := range l.listRunning() {
		if other.oid == b.oid && other.config.consumer == b.config.consumer {
			return newInvalidError(FieldTable, b.config.Schema+"."+b.config.Table, "a table that is not being backfilled already")
		}
	}
	running := append(slices.Clone(l.listRunning()), b)
	l.running.Store(&running)
	start()
	return nil
}

func (l *backfills) remove(b *Backfill) {
	l.mu.Lock()
	defer l.mu.Unlock()
	running := slices.DeleteFunc(slices.Clone(l.listRunning()), func(other *Backfill) bool { return other == b })
	if len(running) == 0 {
		l.running.Store(nil)
		return
	}
	l.running.Store(&running)
}

// close stops all backfills, and refuses new ones.
func (l *backfills) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, b := range l.listRunning() {
		b.Stop()
	}
}

func (l *backfills) findByWatermark(m watermark) *Backfill {
	for _, b := range l.listRunning() {
		if b.id == m.backfill {
			return b
		}
	}
	return nil
}

// isOwnWatermark reports whether a watermark belongs to a running backfill.
func (l *backfills) isOwnWatermark(m watermark) bool { return l.findByWatermark(m) != nil }

// observeTransaction is called with each transaction, in order, by the goroutine that calls Next.
func (l *backfills) observeTransaction(t *Transaction) {
	if !t.isHidden() {
		l.begun.Store(true)
	}
	if l.running.Load() == nil {
		return
	}
	t.observe = func(c *Change) {
		for _, b := range l.listRunning() {
			b.observeChange(c)
		}
	}
	if t.watermark == nil {
		return
	}
	switch b := l.findByWatermark(*t.watermark); {
	case b == nil:
	case t.watermark.high:
		t.Backfill = b
		t.pending, t.BackfillEnds = b.closeWindow(t.watermark.chunk, t.CommitLSN)
	default:
		b.openWindow(t.watermark.chunk)
	}
}
