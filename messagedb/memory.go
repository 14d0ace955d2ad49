package messagedb

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Memory is a [Store] in the memory of the process, for tests of code that takes a Store: it checks input, compares versions and ids,
// divides categories among group members and writes JSON as the server does, and returns the same errors. It has no transactions, conditions,
// subscriptions or consumers: what needs these is tested with a server. It is safe for concurrent use.
type Memory struct {
	mu         sync.RWMutex
	last       int64 // the global position of the last message
	ids        map[string]*Message
	streams    map[StreamName][]*Message
	categories map[string][]*Message
}

// NewMemory makes a store without messages.
func NewMemory() *Memory {
	return &Memory{ids: map[string]*Message{}, streams: map[StreamName][]*Message{}, categories: map[string][]*Message{}}
}

// WriteMessage appends one message to a stream: see [Client.Write].
func (s *Memory) WriteMessage(ctx context.Context, stream StreamName, message ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error) {
	return s.Write(ctx, stream, []ProposedMessage{message}, expected, opts...)
}

// Write appends messages to a stream, all of them or none: see [Client.Write].
func (s *Memory) Write(ctx context.Context, stream StreamName, messages []ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error) {
	if err := stream.validate(); err != nil {
		return 0, err
	}
	var o writeOptions
	for _, change := range opts {
		change(&o)
	}
	if err := validExpected(expected); err != nil {
		return 0, err
	}
	rows, err := prepareAll(messages, o.idempotent)
	if err != nil {
		return 0, err
	}
	for i := range rows {
		if err := rows[i].normalizeFields(); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := s.checkWrite(stream, rows, expected)
	if failed == nil {
		return s.appendRows(stream, rows), nil
	}
	if !o.idempotent {
		return 0, failed
	}
	return s.findWritten(stream, rows, failed)
}

// normalizeFields rewrites the JSON of a row as jsonb would.
func (r *row) normalizeFields() error {
	for _, text := range []**string{&r.data, &r.metadata} {
		if *text == nil {
			continue
		}
		normal, err := normalizeJSON(**text)
		if err != nil {
			return newInvalidError(FieldData, shortenText(**text), "must be JSON that jsonb can hold: "+err.Error())
		}
		*text = &normal
	}
	return nil
}

// checkWrite returns the error of a write that is refused: a version conflict first, as the server does.
func (s *Memory) checkWrite(stream StreamName, rows []row, expected int64) error {
	if actual := s.lastPosition(stream); expected != AnyVersion && expected != actual {
		return &VersionConflictError{Stream: stream, Expected: expected, Actual: actual}
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if s.ids[r.id] != nil || seen[r.id] {
			return &DuplicateIDError{ID: r.id, Position: -1}
		}
		seen[r.id] = true
	}
	return nil
}

func (s *Memory) appendRows(stream StreamName, rows []row) (position int64) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, r := range rows {
		s.last++
		m := &Message{
			ID: r.id, Stream: stream, Type: r.kind, Position: s.lastPosition(stream) + 1, GlobalPosition: s.last,
			Data: rawOf(r.data), Metadata: rawOf(r.metadata), Time: now,
		}
		s.ids[m.ID] = m
		s.streams[stream] = append(s.streams[stream], m)
		s.categories[stream.Category()] = append(s.categories[stream.Category()], m)
	}
	return s.lastPosition(stream)
}

func rawOf(text *string) json.RawMessage {
	if text == nil {
		return nil
	}
	return json.RawMessage(*text)
}

// findWritten decides whether an idempotent write that failed was made before: see [Idempotent].
func (s *Memory) findWritten(stream StreamName, rows []row, failed error) (position int64, err error) {
	var first *Message
	found := 0
	for i, r := range rows {
		m := s.ids[r.id]
		if m == nil {
			continue
		}
		if first == nil {
			first = m
		}
		same := m.Stream == stream && m.Type == r.kind && sameJSON(textOf(m.Data), r.data) && sameJSON(textOf(m.Metadata), r.metadata)
		if !same || m.Position != first.Position+int64(found) {
			return 0, &DuplicateIDError{ID: rows[i].id, Stream: m.Stream, Position: m.Position, Different: !same}
		}
		position = m.Position
		found++
	}
	switch {
	case found == 0:
		return 0, failed
	case found < len(rows):
		return 0, &DuplicateIDError{ID: first.ID, Stream: first.Stream, Position: first.Position}
	}
	return position, nil
}

func textOf(raw json.RawMessage) *string {
	if raw == nil {
		return nil
	}
	text := string(raw)
	return &text
}

// lastPosition is the position of the last message of a stream. The lock must be held.
func (s *Memory) lastPosition(stream StreamName) int64 { return int64(len(s.streams[stream])) - 1 }

// StreamVersion is the position of the last message of a stream, [NoStreamVersion] if there is none.
func (s *Memory) StreamVersion(ctx context.Context, stream StreamName) (int64, error) {
	if err := validName(FieldStream, stream.String()); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lastPosition(stream), nil
}

// refuseRead refuses conditions, as a server does that does not allow them, and what comes after the end of the context.
func refuseRead(ctx context.Context, condition string) error {
	if condition != "" {
		return &ConditionDisabledError{Condition: condition}
	}
	return ctx.Err()
}

// ReadStream reads one batch of a stream: see [Client.ReadStream].
func (s *Memory) ReadStream(ctx context.Context, stream StreamName, options StreamOptions) ([]*Message, error) {
	o, err := options.prepareOptions(stream)
	if err != nil {
		return nil, err
	}
	if err := refuseRead(ctx, o.Condition); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := s.streams[stream]
	from := min(o.From, int64(len(all))) // positions are places in it
	return copyBatch(all[from:], o.BatchSize, func(*Message) bool { return true }), nil
}

// ReadCategory reads one batch of a category: see [Client.ReadCategory].
func (s *Memory) ReadCategory(ctx context.Context, category string, options CategoryOptions) ([]*Message, error) {
	o, err := options.prepareOptions(category)
	if err != nil {
		return nil, err
	}
	if err := refuseRead(ctx, o.Condition); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := s.categories[category]
	from, _ := slices.BinarySearchFunc(all, o.From, func(m *Message, from int64) int { return cmp.Compare(m.GlobalPosition, from) })
	return copyBatch(all[from:], o.BatchSize, o.matchesMessage), nil
}

// matchesMessage reports whether a message is of the correlation and the group member, as the server decides it.
func (o CategoryOptions) matchesMessage(m *Message) bool {
	if o.Correlation != "" && correlationOf(m) != o.Correlation {
		return false
	}
	if o.Group == nil {
		return true
	}
	member, ok := m.Stream.Member(o.Group.Size)
	return ok && member == o.Group.Member
}

// correlationOf is the category of the stream that the metadata names. What is no string is compared by its text, as by the server's ->>.
func correlationOf(m *Message) string {
	var metadata map[string]json.RawMessage
	if json.Unmarshal(m.Metadata, &metadata) != nil {
		return ""
	}
	var name string
	if raw := metadata[CorrelationKey]; json.Unmarshal(raw, &name) != nil {
		name = string(raw)
	}
	return StreamName(name).Category()
}

// LastMessage reads the last message of a stream: see [Client.LastMessage].
func (s *Memory) LastMessage(ctx context.Context, stream StreamName, messageType string) (*Message, error) {
	if err := validName(FieldStream, stream.String()); err != nil {
		return nil, err
	}
	if err := validText(FieldType, messageType); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range slices.Backward(s.streams[stream]) {
		if messageType == "" || m.Type == messageType {
			return copyMessage(m), nil
		}
	}
	return nil, ErrNoMessage
}

func copyBatch(from []*Message, size int, has func(*Message) bool) []*Message {
	var batch []*Message
	for _, m := range from {
		if size != Unlimited && len(batch) == size {
			break
		}
		if has(m) {
			batch = append(batch, copyMessage(m))
		}
	}
	return batch
}

// copyMessage keeps a reader from changing what is stored.
func copyMessage(m *Message) *Message {
	own := *m
	own.Data, own.Metadata = bytes.Clone(m.Data), bytes.Clone(m.Metadata)
	return &own
}
