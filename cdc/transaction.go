package cdc

import (
	"errors"
	"io"
	"iter"
	"time"
)

// Transaction is one that has committed, or a single message that was emitted outside of any. It belongs to the goroutine
// that called [Stream.Next], until the next call.
type Transaction struct {
	// XID is the transaction's id, zero for a message outside of transactions.
	XID uint32
	// CommitLSN is where the commit stands in the log.
	CommitLSN LSN
	// EndLSN is the end of the commit: what [Stream.Ack] takes.
	EndLSN LSN
	// CommitTime is the server's clock at the commit, in UTC. It is zero for a message outside of transactions.
	CommitTime time.Time
	// Origin names where the transaction was made first, if it was replicated to this server. OriginLSN is its commit there.
	Origin    string
	OriginLSN LSN
	// Size is what the server sent, in bytes.
	Size int64
	// Spilled tells that the transaction was too large for memory.
	Spilled bool
	// Backfill is the one whose rows this transaction holds, nil for all that others have written.
	Backfill *Backfill
	// BackfillEnds is set with the last rows of Backfill: all was read. A consumer of a [Fanout] goes by it, because [Backfill.Done] is closed before these
	// rows have come to it.
	BackfillEnds bool

	buffer       buffer
	descriptions buffer // descriptions of tables that came before
	isStreamed   bool
	rows         int
	aborted      map[uint32]bool // subtransactions that were rolled back
	decoder      *decoder
	pending      []*Change
	watermark    *watermark
	observe      func(*Change) // nil while there is no backfill
	memoryWeight int64         // what it holds of the memory for transactions that wait
	// more are the next changes of one that a [Fanout] has decoded already, io.EOF after the last; nil otherwise.
	nextChanges func() ([]*Change, error)
	err         error
}

// Changes reads the changes in the order in which they were made, once: where a loop was left, the next goes on. What is
// left unread is passed over by the next call of [Stream.Next]. An error is the last thing that it yields, and ends the stream.
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

// isHidden tells of a transaction that is only for this package.
func (t *Transaction) isHidden() bool { return t.watermark != nil && !t.watermark.high && t.rows == 0 }

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// finish reads what is left, for the descriptions of tables in it, and frees the room.
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
