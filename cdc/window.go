package cdc

import "slices"

// maxWindowKeys bounds the keys to remember before their chunk was read. Beyond it, the chunk is read once more.
const maxWindowKeys = 100_000

// window records the changes of a table since the low watermark of a chunk.
type window struct {
	number    uint64
	rows      map[string]*seenRow
	reread    map[string]bool // keys to read again although they are in the chunk
	truncated bool
	isSpoiled bool
	isPruned  bool // rows holds only keys of the chunk
}

// seenRow is the state of a row according to the stream.
type seenRow struct {
	relation *Relation
	state    seenState
	row      []Value // of a partial row
}

type seenState int

const (
	rowDeleted  seenState = iota
	rowComplete           // all values are known
	rowPartial            // the missing values are unchanged since the low watermark
	rowUnknown            // missing values have changed since the low watermark
)

// observeChange records a change of the table. The goroutine that calls Next calls it with each change.
func (b *Backfill) observeChange(c *Change) {
	if c.Relation == nil || c.Relation.OID != b.oid {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.window
	switch c.Kind {
	case KindTruncate:
		clear(b.progress.Reread)
		if w != nil {
			w.truncated = true
			clear(w.rows)
			clear(w.reread)
		}
	case KindInsert:
		b.noteRow(c, c.New, nil, &seenRow{relation: c.Relation, state: rowComplete})
	case KindDelete:
		b.noteRow(c, rowBefore(c), nil, &seenRow{state: rowDeleted})
	case KindUpdate:
		b.observeUpdate(c)
	case KindRead, KindMessage, KindSchema:
	}
}

// observeUpdate records an update. It lacks large values that it has not changed. If the row has kept its key, the
// chunk has these values. If the row had another key before, it may not have been read, so it has to be read again.
func (b *Backfill) observeUpdate(c *Change) {
	row := c.New
	s := &seenRow{relation: c.Relation, state: rowComplete}
	if hasUnchanged(row) {
		s.state, s.row = rowPartial, row
	}
	from, known := b.keys.readKey(c.Relation, rowBefore(c), nil)
	to, _ := b.keys.readKey(c.Relation, c.New, rowBefore(c))
	var prior *seenRow
	if b.window != nil && known {
		prior = b.window.rows[joinKey(from)]
	}
	moved := !slices.Equal(from, to)
	if moved {
		b.noteRow(c, rowBefore(c), nil, &seenRow{state: rowDeleted})
	}
	if s.state == rowPartial {
		switch {
		case moved:
			s.state, s.row = rowUnknown, nil
			if to != nil {
				b.requestReread(to)
			}
		case prior == nil:
		case prior.state == rowPartial:
			s.row = fillUnchanged(row, c.Relation, prior.row, prior.relation)
		default:
			s.state, s.row = rowUnknown, nil
		}
	}
	b.noteRow(c, c.New, rowBefore(c), s)
}

// requestReread makes one of the next chunks read a row again.
func (b *Backfill) requestReread(key []string) {
	text := joinKey(key)
	b.progress.Reread[text] = key
	if b.window != nil {
		b.window.reread[text] = true
	}
}

// noteRow records the state of a row while it can matter.
func (b *Backfill) noteRow(c *Change, row, before []Value, s *seenRow) {
	w := b.window
	if w == nil || w.isSpoiled {
		return
	}
	key, ok := b.keys.readKey(c.Relation, row, before)
	if !ok {
		w.isSpoiled = true // the table has another key now
		return
	}
	text := joinKey(key)
	if b.chunk != nil && b.chunk.number == w.number {
		if !w.isPruned {
			for k := range w.rows {
				if !b.chunk.has[k] {
					delete(w.rows, k)
				}
			}
			w.isPruned = true
		}
		if !b.chunk.has[text] {
			return
		}
	} else if len(w.rows) >= maxWindowKeys {
		w.isSpoiled = true
		clear(w.rows)
		return
	}
	w.rows[text] = s
}

// openWindow starts a window at a low watermark.
func (b *Backfill) openWindow(number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.window = &window{number: number, rows: map[string]*seenRow{}, reread: map[string]bool{}}
	}
}

// closeWindow ends a window, and returns the rows that are true at the high watermark. ends reports whether these are
// the last rows.
func (b *Backfill) closeWindow(number uint64, at LSN) (rows []*Change, ends bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, w := b.chunk, b.window
	b.closed = max(b.closed, number)
	defer b.wakeReader()
	if b.ended || c == nil || w == nil || c.number != number || w.number != number {
		return nil, false
	}
	b.chunk, b.window = nil, nil
	if w.isSpoiled {
		return nil, false
	}
	all := make([]Change, 0, len(c.rows))
	for i, row := range c.rows {
		s := w.rows[joinKey(c.keys[i])]
		switch {
		case s == nil && w.truncated, s != nil && s.state == rowDeleted:
			continue
		case s == nil:
		case s.state == rowUnknown || !c.fitsRelation(s.relation):
			b.progress.Reread[joinKey(c.keys[i])] = c.keys[i]
			w.reread[joinKey(c.keys[i])] = true
			continue
		case s.state == rowComplete:
			continue
		default:
			merged := slices.Clone(row)
			for at, column := range c.relation.Columns {
				if v := s.row[s.relation.Index(column.Name)]; v.State != ValueUnchanged {
					merged[at] = v
				}
			}
			row = merged
		}
		all = append(all, Change{Kind: KindRead, Relation: c.relation, New: row, LSN: at})
	}
	for key := range c.reread {
		if !w.reread[key] {
			delete(b.progress.Reread, key)
		}
	}
	if c.lastKey != nil {
		b.progress.Key = c.lastKey
	}
	b.progress.Exhausted = b.progress.Exhausted || c.isLast
	if b.progress.Exhausted && len(b.progress.Reread) == 0 {
		b.progress.Done = true
		b.finishLocked(nil)
	}
	rows = make([]*Change, len(all))
	for i := range all {
		rows[i] = &all[i]
	}
	return rows, b.progress.Done
}

// rowBefore returns what is known of the row before a change.
func rowBefore(c *Change) []Value {
	switch {
	case c.Old != nil:
		return c.Old
	case c.Key != nil:
		return c.Key
	default:
		return c.New
	}
}

func hasUnchanged(row []Value) bool {
	return slices.ContainsFunc(row, func(v Value) bool { return v.State == ValueUnchanged })
}

// fillUnchanged replaces values that an update has left unchanged by those of the row before.
func fillUnchanged(row []Value, relation *Relation, before []Value, of *Relation) []Value {
	if !hasUnchanged(row) {
		return row
	}
	row = slices.Clone(row)
	for i, v := range row {
		if v.State != ValueUnchanged {
			continue
		}
		at := of.Index(relation.Columns[i].Name)
		if at >= 0 && at < len(before) && of.Columns[at].TypeOID == relation.Columns[i].TypeOID {
			row[i] = before[at]
		}
	}
	return row
}
