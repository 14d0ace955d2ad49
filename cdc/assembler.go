package cdc

import "fmt"

// assembler builds transactions from the messages of one connection, within limits of memory and of temporary files.
type assembler struct {
	memoryLimit, spillLimit int64
	folder                  string
	decoder                 *decoder
	// resumeAfter is the end of the last transaction received by an earlier connection. Transactions up to it are
	// dropped.
	resumeAfter LSN

	open         *Transaction            // between begin and commit
	streamed     map[uint32]*Transaction // incomplete transactions of protocol 2, by XID
	streaming    *Transaction            // between stream start and stream stop
	descriptions buffer                  // of tables, from dropped transactions
	addSpilled   func(bytes int64) (total int64)
	emit         func(*Transaction) error
	onEmpty      func(end LSN) // called for a transaction without changes
	// isOwnWatermark reports whether a watermark belongs to a backfill of this stream, and not of another process.
	isOwnWatermark func(watermark) bool
	onHeartbeat    func(heartbeat)
}

// isInTransaction reports whether the next messages belong to an incomplete transaction.
func (a *assembler) isInTransaction() bool { return a.open != nil || a.streaming != nil }

// addMessage handles a message. data is valid during the call only.
func (a *assembler) addMessage(at LSN, data []byte) error {
	w := &messageReader{rest: data}
	switch kind := w.readByte(); kind {
	case messageBegin:
		commit := w.readLSN()
		w.readTime()
		a.open = &Transaction{XID: w.readUint32(), CommitLSN: commit, decoder: a.decoder}
	case messageCommit:
		w.readByte()
		return a.commitTransaction(a.open, w)
	case messageStreamStart:
		xid := w.readUint32()
		if a.streaming = a.streamed[xid]; a.streaming == nil {
			a.streaming = &Transaction{XID: xid, decoder: a.decoder, isStreamed: true}
			a.streamed[xid] = a.streaming
		}
	case messageStreamStop:
		a.streaming = nil
	case messageStreamCommit:
		xid := w.readUint32()
		w.readByte()
		t := a.streamed[xid]
		delete(a.streamed, xid)
		return a.commitTransaction(t, w)
	case messageStreamAbort:
		a.abortTransaction(w.readUint32(), w.readUint32())
	case messageOrigin:
		if t := a.currentTransaction(); t != nil {
			t.OriginLSN, t.Origin = w.readLSN(), w.readString()
		}
	case messageLogical:
		t := a.currentTransaction()
		own, content := ownMessage(data, t != nil && t.isStreamed)
		switch {
		case own != "":
			a.takeOwnMessage(t, own, content)
			return nil
		case t == nil:
			return a.deliverLoneMessage(at, data)
		}
		return a.addRow(at, data, true)
	default:
		return a.addRow(at, data, kind != messageRelation && kind != messageType)
	}
	return w.err
}

// takeOwnMessage handles a message that this package has written, which is not delivered.
func (a *assembler) takeOwnMessage(t *Transaction, prefix, content string) {
	switch prefix {
	case prefixWatermark:
		if m, ok := parseWatermark(content); ok && t != nil && a.isOwnWatermark(m) {
			t.watermark = &m
		}
	case prefixHeartbeat:
		if h, ok := parseHeartbeat(content); ok {
			a.onHeartbeat(h)
		}
	}
}

func (a *assembler) currentTransaction() *Transaction {
	if a.streaming != nil {
		return a.streaming
	}
	return a.open
}

// addRow adds a message to the current transaction.
func (a *assembler) addRow(at LSN, data []byte, change bool) error {
	t := a.currentTransaction()
	if t == nil {
		return fmt.Errorf("%w: message %q at %s is outside of a transaction", ErrProtocol, data[:min(1, len(data))], at)
	}
	xid := t.XID
	if t.isStreamed {
		xid = (&messageReader{rest: data[1:]}).readUint32()
	}
	if change {
		t.rows++
	}
	return a.addEntry(t, entry{at, xid, data})
}

func (a *assembler) addEntry(t *Transaction, e entry) error {
	before := t.buffer.size
	if int64(len(e.data)) > a.memoryLimit && t.buffer.file == nil && a.spillLimit >= 0 { // write a large message to a file without copying it first
		t.Spilled, before = true, 0
		if err := t.buffer.spillToFile(a.folder); err != nil {
			return err
		}
	}
	if err := t.buffer.appendEntry(e); err != nil {
		return err
	}
	if t.buffer.file != nil {
		return a.reserveSpill(t, t.buffer.size-before)
	}
	if a.memoryInUse() <= a.memoryLimit {
		return nil
	}
	largest := t
	for _, other := range a.streamed {
		if other.buffer.memory > largest.buffer.memory {
			largest = other
		}
	}
	if a.spillLimit < 0 {
		return &TooLargeError{XID: largest.XID, Limit: a.memoryLimit}
	}
	largest.Spilled = true
	if err := largest.buffer.spillToFile(a.folder); err != nil {
		return err
	}
	return a.reserveSpill(largest, largest.buffer.size)
}

// reserveSpill counts bytes of temporary files against the limit.
func (a *assembler) reserveSpill(t *Transaction, bytes int64) error {
	if a.addSpilled(bytes) > a.spillLimit {
		return &TooLargeError{XID: t.XID, Limit: a.spillLimit}
	}
	return nil
}

func (a *assembler) memoryInUse() (total int64) {
	if a.open != nil {
		total = a.open.buffer.memory
	}
	for _, t := range a.streamed {
		total += t.buffer.memory
	}
	return total
}

func (a *assembler) commitTransaction(t *Transaction, w *messageReader) error {
	if t == nil {
		return fmt.Errorf("%w: a commit without a transaction", ErrProtocol)
	}
	if t.CommitLSN, t.EndLSN, t.CommitTime = w.readLSN(), w.readLSN(), w.readTime(); w.err != nil {
		return w.err
	}
	a.open = nil
	return a.deliverTransaction(t)
}

// deliverLoneMessage delivers a message that belongs to no transaction.
func (a *assembler) deliverLoneMessage(at LSN, data []byte) error {
	t := &Transaction{CommitLSN: at, EndLSN: at, decoder: a.decoder, rows: 1}
	if err := t.buffer.appendEntry(entry{at, 0, data}); err != nil {
		return err
	}
	return a.deliverTransaction(t)
}

func (a *assembler) deliverTransaction(t *Transaction) error {
	t.Size = t.buffer.size
	if seen := t.EndLSN <= a.resumeAfter; seen || t.rows == 0 && t.watermark == nil {
		if !seen {
			a.onEmpty(t.EndLSN)
		}
		defer a.dropTransaction(t)
		return a.keepDescriptions(t)
	}
	// The decoder reads descriptions together with this transaction, because earlier transactions may need older ones.
	t.descriptions, a.descriptions = a.descriptions, buffer{}
	return a.emit(t)
}

// keepDescriptions copies the descriptions of tables from a dropped transaction, because later ones need them.
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
		if t.isStreamed { // remove the XID
			data = append(append([]byte{}, data[0]), data[5:]...)
		}
		if err := a.descriptions.appendEntry(entry{e.at, 0, data}); err != nil {
			return err
		}
	}
}

func (a *assembler) abortTransaction(xid, subxid uint32) {
	t := a.streamed[xid]
	switch {
	case t == nil:
	case xid == subxid:
		delete(a.streamed, xid)
		a.dropTransaction(t)
	default:
		if t.aborted == nil {
			t.aborted = map[uint32]bool{}
		}
		t.aborted[subxid] = true
	}
}

func (a *assembler) dropTransaction(t *Transaction) {
	if t.Spilled {
		a.addSpilled(-t.buffer.size)
	}
	t.buffer.release()
}

// discardIncomplete releases all incomplete transactions.
func (a *assembler) discardIncomplete() {
	if a.open != nil {
		a.dropTransaction(a.open)
	}
	for _, t := range a.streamed {
		a.dropTransaction(t)
	}
	a.open, a.streaming, a.streamed = nil, nil, map[uint32]*Transaction{}
}
