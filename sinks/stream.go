package sinks

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"sync"

	"github.com/chariot-giving/delta/cdc"
)

// HeaderNewKey is the header of a delete message whose row lives on under another key: the Key of the insert message that follows.
const HeaderNewKey = "new_key"

// NewStreamSource is a Source of the changes in the stream of a slot, one message for each row. Open the stream with [cdc.Open], and close it after the
// relay has ended. It must have no other reader, and no backfill: rows of a backfill have no position that stays the same.
//
// The key of a message is its table with the row's key, and the type is the kind of the change. An update that changes the key is
// two messages, a delete of the old row and an insert of the new one, because order is kept for each key alone. Truncates, changed schemas and
// logical messages are barriers. The body is JSON with schema, table, key, new, old and unchanged, as `delta stream` writes them.
//
// The slot moves when all messages of a transaction are finished, so Postgres keeps its log while a message is blocked.
func NewStreamSource(stream *cdc.Stream, config StreamConfig) Source {
	return &streamSource{stream: stream, name: config.Name, keys: config.Keys}
}

// StreamConfig is what [NewStreamSource] can be told. The zero value is useful.
type StreamConfig struct {
	// Name begins the ids of messages. Give each stream of a database its own where several go to one receiver, which otherwise takes changes of one
	// transaction in two streams for the same: the name of the slot will do. Default: none.
	Name string
	// Keys names the columns that identify a row, for tables by schema.table. They must belong to the replica identity. Default: the columns
	// of the replica identity. For a table whose replica identity is FULL these are all columns, which change: without Keys such a table is
	// one key, so that its changes are delivered one after another.
	Keys map[string][]string
}

type streamSource struct {
	stream *cdc.Stream
	name   string
	keys   map[string][]string

	// Of Next.
	current *cdc.Transaction
	next    func() (*cdc.Change, error, bool)
	stop    func()
	ahead   *cdc.Change // read, not given: so the last change of a transaction is known as such
	index   int
	before  cdc.LSN // the end of the transaction before the current one

	mu        sync.Mutex
	given     int64 // the number of the last message that Next gave
	confirmed int64
}

// streamPosition is where the slot may go when a message, and all before it, are finished.
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

// nextTransaction begins with the next transaction that has changes.
func (s *streamSource) nextTransaction(ctx context.Context) error {
	if s.current != nil {
		s.before = s.current.EndLSN
	}
	t, err := s.stream.Next(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return Permanent(err) // the stream has tried again already
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

// Close ends the reading of the current transaction. The stream is the caller's.
func (s *streamSource) Close() {
	if s.stop != nil {
		s.stop()
	}
}

// passEmpty lets the slot follow a transaction without changes, if no message waits.
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

// nextPosition numbers a message. The slot may follow to the end of the transaction before, and to that of its own with the last message.
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

// appendMessages makes messages of a change.
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

// numberMessage gives a message its id and position. The id is the same if the transaction comes again.
func (s *streamSource) numberMessage(m Message, last bool) Message {
	m.ID = fmt.Sprintf("%s-%d", s.current.CommitLSN, s.index)
	if s.name != "" {
		m.ID = s.name + ":" + m.ID
	}
	s.index++
	m.Position = s.nextPosition(last)
	return m
}
