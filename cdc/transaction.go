package cdc

import (
	"errors"
	"io"
	"iter"
	"time"
)

// Transaction is a committed transaction, or a single message that was emitted outside of any transaction. It belongs
// to the goroutine that called [Stream.Next], until its next call.
type Transaction struct {
	// XID is the transaction's id, zero for a message outside of transactions.
	XID uint32
	// CommitLSN is the position of the commit in the log.
	CommitLSN LSN
	// EndLSN is the end of the commit: the argument of [Stream.Ack].
	EndLSN LSN
	// CommitTime is the server's clock at the commit, in UTC. It is zero for a message outside of transactions.
	CommitTime time.Time
	// Origin names the server that made the transaction first, if it was replicated to this one. OriginLSN is its
	// commit there.
	Origin    string
	OriginLSN LSN
	// Size is the size of the transaction as sent by the server, in bytes.
	Size int64
	// Spilled reports whether the transaction was too large for memory.
	Spilled bool
	// Backfill is the backfill that has read the rows of this transaction. It is nil for all other transactions.
	Backfill *Backfill
	// BackfillEnds reports whether these are the last rows of Backfill. Consumers of a [Fanout] need it because
	// [Backfill.Done] is closed before the rows reach them.
	BackfillEnds bool

	buffer       buffer
	descriptions buffer // of tables, from transactions before this one that were left out
	isStreamed   bool
	rows         int
	aborted      map[uint32]bool // subtransactions that were rolled back
	decoder      *decoder
	pending      []*Change
	watermark    *watermark
	observe      func(*Change) // nil while there is no backfill
	memoryWeight int64         // its share of Stream.memory
	// nextChanges returns the next changes of a transaction that a [Fanout] has decoded, io.EOF after the last. It is
	// nil for a transaction of a Stream.
	nextChanges func() ([]*Change, error)
	err         error
}

// Changes yields the changes in the order in which they were made, once: a second loop continues where the first one
// stopped. The next call of [Stream.Next] skips changes that were not read. An error is the last element, and ends the
// stream.
func (t *Transaction) Changes() iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		for {
			change, err := t.next()
			if errors.Is(err, io.EOF) || !yield(change, err) || err != nil {
				return
			}
		}
	}
}

func (t *Transaction) next() (*Change, error) {
	for len(t.pending) == 0 {
		if t.err != nil {
			return nil, t.err
		}
		if t.nextChanges != nil {
			t.pending, t.err = t.nextChanges()
			continue
		}
		if e, err := t.descriptions.next(); err == nil {
			_, t.err = t.decoder.decode(nil, e.data, e.at, 0, false)
			continue
		}
		e, err := t.buffer.next()
		if err == nil && t.aborted[e.xid] && e.data[0] != messageRelation && e.data[0] != messageType {
			continue
		}
		if err == nil {
			t.pending, err = t.decoder.decode(t.pending[:0], e.data, e.at, e.xid, t.isStreamed)
		}
		if err == nil && t.observe != nil {
			for _, change := range t.pending {
				t.observe(change)
			}
		}
		t.err = err
	}
	change := t.pending[0]
	t.pending = t.pending[1:]
	return change, nil
}

// isHidden reports whether the transaction holds nothing but a low watermark of this package, which is not delivered.
func (t *Transaction) isHidden() bool { return t.watermark != nil && !t.watermark.high && t.rows == 0 }

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// finish decodes the rest, because it may describe tables of later transactions, and releases the buffer.
func (t *Transaction) finish() error {
	defer t.buffer.release()
	for {
		if _, err := t.next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
