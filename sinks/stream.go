package sinks

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"sync"

	"github.com/chariot-giving/delta/cdc"
)

// HeaderNewKey is a header of the delete message for a row that was moved to another key. It has the Key of the insert message that
// follows.
const HeaderNewKey = "new_key"

// NewStreamSource returns a Source of the changes in the stream of a slot, one message for each row. Open the stream with [cdc.Open], and
// close it after the relay has ended. It must have no other reader, and no backfill, because rows of a backfill have no stable position.
//
// The key of a message is its table with the row's key, and the type is the kind of the change. An update that changes the key becomes two
// messages, a delete of the old row and an insert of the new one, because order is kept for each key alone. Truncates, changed schemas and
// logical messages are barriers. The body is JSON with schema, table, key, new, old and unchanged, as `delta stream` writes them.
//
// The slot advances when all messages of a transaction are finished, so Postgres keeps its log while a message is blocked.
func NewStreamSource(stream *cdc.Stream, config StreamConfig) Source {
	return &streamSource{stream: stream, name: config.Name, keys: config.Keys}
}

// StreamConfig configures [NewStreamSource]. The zero value is useful.
type StreamConfig struct {
	// Name is a prefix of the ids of messages. If several streams of a database go to one receiver, give each its own, such as the name of
	// the slot: otherwise changes of one transaction have the same ids in both streams. Default: none.
	Name string
	// Keys has the columns that identify a row, by schema.table. They must belong to the replica identity. Default: the columns of the
	// replica identity. For a table with the replica identity FULL these would be all columns, which change: without Keys such a table is
	// one key, so that its changes are delivered one after another.
	Keys map[string][]string
}

type streamSource struct {
	stream *cdc.Stream
	name   string
	keys   map[string][]string

	// Only for Next.
	current *cdc.Transaction
	next    func() (*cdc.Change, error, bool)
	stop    func()
	ahead   *cdc.Change // read ahead by one, so that the last change of a transaction is known as such
	index   int
	before  cdc.LSN // the end of the transaction before the current one

	mu        sync.Mutex
	given     int64 // the number of the last message that Next gave
	confirmed int64
}

// streamPosition is where the slot may advance to when a message, and all before it, are finished.
type streamPosition struct {
	number int64
	lsn    cdc.LSN
}

func (s *streamSource) Next(ctx context.Context, limit int) ([]Message, error) {
	var messages []Message
	for len(messages) < limit {
		if s.ahead == nil {
			if len(messages) > 0 {
				return messages, nil
			}
			if err := s.nextTransaction(ctx); err != nil {
				return nil, err
			}
			continue
		}
		change := s.ahead
		if err := s.readAhead(); err != nil {
			return nil, err
		}
		messages = s.appendMessages(messages, change)
	}
	return messages, nil
}

// nextTransaction advances to the next transaction that has changes.
func (s *streamSource) nextTransaction(ctx context.Context) error {
	if s.current != nil {
		s.before = s.current.EndLSN
	}
	t, err := s.stream.Next(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return Permanent(err) // the stream has already retried
	}
	s.current, s.index = t, 0
	s.next, s.stop = iter.Pull2(t.Changes())
	if err := s.readAhead(); err != nil {
		return err
	}
	if s.ahead == nil {
		return s.passEmpty(t.EndLSN)
	}
	return nil
}

// readAhead reads the next change of the current transaction into ahead, nil at its end.
func (s *streamSource) readAhead() error {
	change, err, found := s.next()
	if !found {
		s.ahead = nil
		s.stop()
		return nil
	}
	if err != nil {
		s.ahead = nil
		return Permanent(err)
	}
	s.ahead = change
	return nil
}

// Close stops the iteration of the current transaction. It does not close the stream, which belongs to the caller.
func (s *streamSource) Close() {
	if s.stop != nil {
		s.stop()
	}
}

// passEmpty advances the slot past a transaction without changes, if no message is unconfirmed.
func (s *streamSource) passEmpty(end cdc.LSN) error {
	s.mu.Lock()
	idle := s.given == s.confirmed
	s.mu.Unlock()
	if !idle {
		return nil
	}
	return s.stream.Ack(end)
}

func (s *streamSource) Confirm(_ context.Context, position any) error {
	p := position.(streamPosition) //nolint:forcetypeassert // it is ours
	s.mu.Lock()
	s.confirmed = p.number
	s.mu.Unlock()
	if p.lsn == 0 {
		return nil // within the first transaction
	}
	return s.stream.Ack(p.lsn)
}

// nextPosition numbers a message. When it is finished, the slot may advance to the end of the previous transaction, and for the last
// message of a transaction to its own end.
func (s *streamSource) nextPosition(last bool) streamPosition {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given++
	p := streamPosition{number: s.given, lsn: s.before}
	if last {
		p.lsn = s.current.EndLSN
	}
	return p
}

// appendMessages appends the messages of a change.
func (s *streamSource) appendMessages(messages []Message, c *cdc.Change) []Message {
	last := s.ahead == nil
	m := Message{Type: string(c.Kind), Time: s.current.CommitTime}
	if c.Relation != nil {
		m.Subject = c.Relation.Name()
	}
	switch c.Kind {
	case cdc.KindMessage:
		m.Subject, m.Barrier = c.Message.Prefix, true
	case cdc.KindTruncate, cdc.KindSchema:
		m.Barrier = true
	default:
		m.Key = s.rowKey(c.Relation, c.KeyValues())
	}
	if newKey := s.changedKey(c); newKey != "" {
		removed, inserted := m, m
		removed.Type, removed.Body = string(cdc.KindDelete), changeBody(c, cdc.KindDelete)
		removed.Headers = map[string]string{HeaderNewKey: newKey}
		inserted.Type, inserted.Key, inserted.Body = string(cdc.KindInsert), newKey, changeBody(c, cdc.KindInsert)
		inserted.Headers = maps.Clone(m.Headers)
		return append(messages, s.numberMessage(removed, false), s.numberMessage(inserted, last))
	}
	m.Body = changeBody(c, c.Kind)
	return append(messages, s.numberMessage(m, last))
}

// numberMessage sets the id and position of a message. The id is the same if the transaction is read again.
func (s *streamSource) numberMessage(m Message, last bool) Message {
	m.ID = fmt.Sprintf("%s-%d", s.current.CommitLSN, s.index)
	if s.name != "" {
		m.ID = s.name + ":" + m.ID
	}
	s.index++
	m.Position = s.nextPosition(last)
	return m
}
