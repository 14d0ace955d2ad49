package cdc

import (
	"slices"
	"sync"
	"sync/atomic"
)

// windowKeys is how many keys are remembered at most before their chunk is there. Beyond it, the chunk is read once more.
const windowKeys = 100_000

// window is what has changed in a table since the low mark of a chunk.
type window struct {
	number    uint64
	rows      map[string]*seen
	moved     map[string]bool // keys that have to be read again, though they are in the chunk
	truncated bool
	spoiled   bool
	pruned    bool // rows holds only what is in the chunk
}

// seen is what the stream has made of a row.
type seen struct {
	relation *Relation
	state    seenState
	row      []Value // of a row that is partly seen
}

type seenState int

const (
	gone    seenState = iota
	whole             // all values came
	partly            // some did not, and are what they were when the window began
	unknown           // some did not, and were changed before
)

// observe notes a change of the table. The goroutine that calls Next calls it with each.
func (b *Backfill) observe(c *Change) {
	if c.Relation == nil || c.Relation.OID != b.oid {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.window
	switch c.Kind {
	case KindTruncate:
		clear(b.progress.Again)
		if w != nil {
			w.truncated = true
			clear(w.rows)
			clear(w.moved)
		}
	case KindInsert:
		b.note(c, c.New, nil, &seen{relation: c.Relation, state: whole})
	case KindDelete:
		b.note(c, before(c), nil, &seen{state: gone})
	case KindUpdate:
		b.observeUpdate(c)
	case KindRead, KindMessage, KindSchema:
	}
}

// observeUpdate follows what is known of the row. Large values that the update has left alone are not in it: where the row has
// kept its key, they are what the chunk has; where it has come from another key, which may not have been read, nobody has
// them, and the row has to be read again.
func (b *Backfill) observeUpdate(c *Change) {
	row := c.New
	s := &seen{relation: c.Relation, state: whole}
	if hasHoles(row) {
		s.state, s.row = partly, row
	}
	from, known := b.keys.read(c.Relation, before(c), nil)
	to, _ := b.keys.read(c.Relation, c.New, before(c))
	var prior *seen
	if b.window != nil && known {
		prior = b.window.rows[joinKey(from)]
	}
	moved := !slices.Equal(from, to)
	if moved {
		b.note(c, before(c), nil, &seen{state: gone})
	}
	if s.state == partly {
		switch {
		case moved:
			s.state, s.row = unknown, nil
			if to != nil {
				b.readAgain(to)
			}
		case prior == nil:
		case prior.state == partly:
			s.row = overlay(row, c.Relation, prior.row, prior.relation)
		default:
			s.state, s.row = unknown, nil
		}
	}
	b.note(c, c.New, before(c), s)
}

// readAgain has a row read in one of the next chunks.
func (b *Backfill) readAgain(key []string) {
	text := joinKey(key)
	b.progress.Again[text] = key
	if b.window != nil {
		b.window.moved[text] = true
	}
}

// note keeps what is known of a row while it can matter.
func (b *Backfill) note(c *Change, row, before []Value, s *seen) {
	w := b.window
	if w == nil || w.spoiled {
		return
	}
	key, ok := b.keys.read(c.Relation, row, before)
	if !ok {
		w.spoiled = true // the table has another key by now
		return
	}
	text := joinKey(key)
	if b.chunk != nil && b.chunk.number == w.number {
		if !w.pruned {
			for k := range w.rows {
				if !b.chunk.has[k] {
					delete(w.rows, k)
				}
			}
			w.pruned = true
		}
		if !b.chunk.has[text] {
			return
		}
	} else if len(w.rows) >= windowKeys {
		w.spoiled = true
		clear(w.rows)
		return
	}
	w.rows[text] = s
}

// open begins a window.
func (b *Backfill) open(number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.window = &window{number: number, rows: map[string]*seen{}, moved: map[string]bool{}}
	}
}

// deliver ends a window: what it returns is true at the high mark. ends reports whether these are the last rows.
func (b *Backfill) deliver(number uint64, at LSN) (rows []*Change, ends bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, w := b.chunk, b.window
	b.closed = max(b.closed, number)
	defer b.wake()
	if b.ended || c == nil || w == nil || c.number != number || w.number != number {
		return nil, false
	}
	b.chunk, b.window = nil, nil
	if w.spoiled {
		return nil, false
	}
	all := make([]Change, 0, len(c.rows))
	for i, row := range c.rows {
		s := w.rows[joinKey(c.keys[i])]
		switch {
		case s == nil && w.truncated, s != nil && s.state == gone:
			continue
		case s == nil:
		case s.state == unknown || !c.fits(s.relation):
			b.progress.Again[joinKey(c.keys[i])] = c.keys[i]
			w.moved[joinKey(c.keys[i])] = true
			continue
		case s.state == whole:
			continue
		default:
			merged := slices.Clone(row)
			for at, column := range c.relation.Columns {
				if v := s.row[s.relation.Index(column.Name)]; v.State != Unchanged {
					merged[at] = v
				}
			}
			row = merged
		}
		all = append(all, Change{Kind: KindRead, Relation: c.relation, New: row, LSN: at})
	}
	for key := range c.again {
		if !w.moved[key] {
			delete(b.progress.Again, key)
		}
	}
	if c.high != nil {
		b.progress.Key = c.high
	}
	b.progress.Exhausted = b.progress.Exhausted || c.last
	if b.progress.Exhausted && len(b.progress.Again) == 0 {
		b.progress.Done = true
		b.finishLocked(nil)
	}
	rows = make([]*Change, len(all))
	for i := range all {
		rows[i] = &all[i]
	}
	return rows, b.progress.Done
}

// before is what is known of the row before a change.
func before(c *Change) []Value {
	switch {
	case c.Old != nil:
		return c.Old
	case c.Key != nil:
		return c.Key
	default:
		return c.New
	}
}

func hasHoles(row []Value) bool {
	return slices.ContainsFunc(row, func(v Value) bool { return v.State == Unchanged })
}

// overlay fills what an update has left alone with what was there before.
func overlay(row []Value, relation *Relation, before []Value, of *Relation) []Value {
	if !hasHoles(row) {
		return row
	}
	row = slices.Clone(row)
	for i, v := range row {
		if v.State != Unchanged {
			continue
		}
		at := of.Index(relation.Columns[i].Name)
		if at >= 0 && at < len(before) && of.Columns[at].TypeOID == relation.Columns[i].TypeOID {
			row[i] = before[at]
		}
	}
	return row
}

// backfills are those of a stream that are running.
type backfills struct {
	mu      sync.Mutex
	running atomic.Pointer[[]*Backfill] // nil where there are none
	closed  bool
	begun   atomic.Bool // Next has returned a transaction
}

func (l *backfills) list() []*Backfill {
	if running := l.running.Load(); running != nil {
		return *running
	}
	return nil
}

// add lets one run, if there is none of its table for the same consumer of a [Fanout].
func (l *backfills) add(b *Backfill, start func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	for _, other := range l.list() {
		if other.oid == b.oid && other.config.consumer == b.config.consumer {
			return invalid(FieldTable, b.config.Schema+"."+b.config.Table, "a table that is not being backfilled already")
		}
	}
	running := append(slices.Clone(l.list()), b)
	l.running.Store(&running)
	start()
	return nil
}

func (l *backfills) remove(b *Backfill) {
	l.mu.Lock()
	defer l.mu.Unlock()
	running := slices.DeleteFunc(slices.Clone(l.list()), func(other *Backfill) bool { return other == b })
	if len(running) == 0 {
		l.running.Store(nil)
		return
	}
	l.running.Store(&running)
}

// close ends all, and lets no other begin.
func (l *backfills) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, b := range l.list() {
		b.Stop()
	}
}

func (l *backfills) find(m mark) *Backfill {
	for _, b := range l.list() {
		if b.id == m.backfill {
			return b
		}
	}
	return nil
}

// known tells of marks that belong to one of them.
func (l *backfills) known(m mark) bool { return l.find(m) != nil }

// pass is called with each transaction when its turn has come, by the goroutine that calls Next.
func (l *backfills) pass(t *Transaction) {
	if !t.hidden() {
		l.begun.Store(true)
	}
	if l.running.Load() == nil {
		return
	}
	t.observe = func(c *Change) {
		for _, b := range l.list() {
			b.observe(c)
		}
	}
	if t.mark == nil {
		return
	}
	switch b := l.find(*t.mark); {
	case b == nil:
	case t.mark.high:
		t.Backfill = b
		t.pending, t.BackfillEnds = b.deliver(t.mark.chunk, t.CommitLSN)
	default:
		b.open(t.mark.chunk)
	}
}
