package cdc

import "fmt"

// assembler makes transactions of the messages of one connection, within limits of memory and of temporary files.
type assembler struct {
	memoryLimit, spillLimit int64
	folder                  string
	decoder                 *decoder
	// after is the end of the last transaction that came by an earlier connection: until there, all are passed over.
	after LSN

	open     *Transaction            // between begin and commit
	streams  map[uint32]*Transaction // those that come in pieces
	piece    *Transaction            // the one that a piece is of
	describe buffer                  // descriptions of tables in transactions that were passed over
	spilled  func(bytes int64) (total int64)
	emit     func(*Transaction) error
	skip     func(end LSN) // a transaction without changes
	// marked tells whether a mark is one of this stream's backfills, and not of another process.
	marked    func(mark) bool
	heartbeat func(heartbeat)
}

// inside tells whether the messages that follow belong to a transaction that is not complete.
func (a *assembler) inside() bool { return a.open != nil || a.piece != nil }

// message takes one. data is valid during the call only.
func (a *assembler) message(at LSN, data []byte) error {
	w := &wire{rest: data}
	switch kind := w.byte(); kind {
	case messageBegin:
		commit := w.lsn()
		w.time()
		a.open = &Transaction{XID: w.uint32(), CommitLSN: commit, decoder: a.decoder}
	case messageCommit:
		w.byte()
		return a.commit(a.open, w)
	case messageStreamStart:
		xid := w.uint32()
		if a.piece = a.streams[xid]; a.piece == nil {
			a.piece = &Transaction{XID: xid, decoder: a.decoder, streamed: true}
			a.streams[xid] = a.piece
		}
	case messageStreamStop:
		a.piece = nil
	case messageStreamCommit:
		xid := w.uint32()
		w.byte()
		t := a.streams[xid]
		delete(a.streams, xid)
		return a.commit(t, w)
	case messageStreamAbort:
		a.abort(w.uint32(), w.uint32())
	case messageOrigin:
		if t := a.current(); t != nil {
			t.OriginLSN, t.Origin = w.lsn(), w.string()
		}
	case messageLogical:
		t := a.current()
		own, content := ownMessage(data, t != nil && t.streamed)
		switch {
		case own != "":
			a.own(t, own, content)
			return nil
		case t == nil:
			return a.alone(at, data)
		}
		return a.row(at, data, true)
	default:
		return a.row(at, data, kind != messageRelation && kind != messageType)
	}
	return w.err
}

// own takes a message that this package has written, and which is not delivered.
func (a *assembler) own(t *Transaction, prefix, content string) {
	switch prefix {
	case prefixMark:
		if m, ok := parseMark(content); ok && t != nil && a.marked(m) {
			t.mark = &m
		}
	case prefixHeartbeat:
		if h, ok := parseHeartbeat(content); ok {
			a.heartbeat(h)
		}
	}
}

func (a *assembler) current() *Transaction {
	if a.piece != nil {
		return a.piece
	}
	return a.open
}

// row keeps what belongs to the transaction.
func (a *assembler) row(at LSN, data []byte, change bool) error {
	t := a.current()
	if t == nil {
		return fmt.Errorf("%w: message %q at %s is outside of a transaction", ErrProtocol, data[:min(1, len(data))], at)
	}
	xid := t.XID
	if t.streamed {
		xid = (&wire{rest: data[1:]}).uint32()
	}
	if change {
		t.rows++
	}
	return a.add(t, entry{at, xid, data})
}

func (a *assembler) add(t *Transaction, e entry) error {
	before := t.buffer.size
	if int64(len(e.data)) > a.memoryLimit && t.buffer.file == nil && a.spillLimit >= 0 { // it need not be copied only to go to a file
		t.Spilled, before = true, 0
		if err := t.buffer.spill(a.folder); err != nil {
			return err
		}
	}
	if err := t.buffer.append(e); err != nil {
		return err
	}
	if t.buffer.file != nil {
		return a.room(t, t.buffer.size-before)
	}
	if a.memory() <= a.memoryLimit {
		return nil
	}
	largest := t
	for _, other := range a.streams {
		if other.buffer.memory > largest.buffer.memory {
			largest = other
		}
	}
	if a.spillLimit < 0 {
		return &TooLargeError{XID: largest.XID, Limit: a.memoryLimit}
	}
	largest.Spilled = true
	if err := largest.buffer.spill(a.folder); err != nil {
		return err
	}
	return a.room(largest, largest.buffer.size)
}

func (a *assembler) room(t *Transaction, bytes int64) error {
	if a.spilled(bytes) > a.spillLimit {
		return &TooLargeError{XID: t.XID, Limit: a.spillLimit}
	}
	return nil
}

func (a *assembler) memory() (total int64) {
	if a.open != nil {
		total = a.open.buffer.memory
	}
	for _, t := range a.streams {
		total += t.buffer.memory
	}
	return total
}

func (a *assembler) commit(t *Transaction, w *wire) error {
	if t == nil {
		return fmt.Errorf("%w: a commit without a transaction", ErrProtocol)
	}
	if t.CommitLSN, t.EndLSN, t.CommitTime = w.lsn(), w.lsn(), w.time(); w.err != nil {
		return w.err
	}
	a.open = nil
	return a.deliver(t)
}

// alone delivers a message that belongs to no transaction.
func (a *assembler) alone(at LSN, data []byte) error {
	t := &Transaction{CommitLSN: at, EndLSN: at, decoder: a.decoder, rows: 1}
	if err := t.buffer.append(entry{at, 0, data}); err != nil {
		return err
	}
	return a.deliver(t)
}

func (a *assembler) deliver(t *Transaction) error {
	t.Size = t.buffer.size
	if seen := t.EndLSN <= a.after; seen || t.rows == 0 && t.mark == nil {
		if !seen {
			a.skip(t.EndLSN)
		}
		defer a.drop(t)
		return a.keepDescriptions(t)
	}
	// They are read when it is this transaction's turn, not before: those before it may need the older ones.
	t.described, a.describe = a.describe, buffer{}
	return a.emit(t)
}

// keepDescriptions takes from a transaction that is passed over what those that follow need.
func (a *assembler) keepDescriptions(t *Transaction) error {
	for {
		e, err := t.buffer.next()
		if err != nil {
			return ignoreEOF(err)
		}
		if e.data[0] != messageRelation && e.data[0] != messageType {
			continue
		}
		data := e.data
		if t.streamed { // without the transaction
			data = append(append([]byte{}, data[0]), data[5:]...)
		}
		if err := a.describe.append(entry{e.at, 0, data}); err != nil {
			return err
		}
	}
}

func (a *assembler) abort(xid, subxid uint32) {
	t := a.streams[xid]
	switch {
	case t == nil:
	case xid == subxid:
		delete(a.streams, xid)
		a.drop(t)
	default:
		if t.aborted == nil {
			t.aborted = map[uint32]bool{}
		}
		t.aborted[subxid] = true
	}
}

func (a *assembler) drop(t *Transaction) {
	if t.Spilled {
		a.spilled(-t.buffer.size)
	}
	t.buffer.release()
}

// discard frees all that is not complete.
func (a *assembler) discard() {
	if a.open != nil {
		a.drop(a.open)
	}
	for _, t := range a.streams {
		a.drop(t)
	}
	a.open, a.piece, a.streams = nil, nil, map[uint32]*Transaction{}
}
