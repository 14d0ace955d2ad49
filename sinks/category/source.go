package category

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
)

// SourceConfig is what [NewSource] needs. Client and Consumer.Category are required.
type SourceConfig struct {
	// Client reads the category. It must be the primary server's.
	Client *messagedb.Client
	// Consumer says which category is read, and whose position is saved: that of the last message which was delivered, and before which all were. Its Handler must be nil, and
	// its Poison and PositionInterval mean nothing. Members of a group are relays of their own. With Rewind, the relay ends with a [*messagedb.RewoundError]
	// where the store has gone back, or begins again at the first message. Default of its BatchSize: 500.
	Consumer messagedb.ConsumerConfig
	// Prefix begins the ids of messages. Default: none, as the ids of the store are uuids.
	Prefix string
}

const defaultBatch = 500

// Entry is the body of a message: a message of the store. Members are added, and never renamed or removed.
type Entry struct {
	ID             string          `json:"id"`
	Stream         string          `json:"stream"`
	Type           string          `json:"type"`
	Position       int64           `json:"position"`
	GlobalPosition int64           `json:"global_position"`
	Time           time.Time       `json:"time"`
	Data           json.RawMessage `json:"data"`
	Metadata       json.RawMessage `json:"metadata"`
}

// EntryOf is a message of the store as an entry.
func EntryOf(m *messagedb.Message) Entry {
	return Entry{
		ID: m.ID, Stream: m.Stream.String(), Type: m.Type, Position: m.Position, GlobalPosition: m.GlobalPosition, Time: m.Time, Data: m.Data, Metadata: m.Metadata,
	}
}

// NewSource returns a source, or a [*sinks.InvalidError]. What else is wrong with the consumer, [sinks.Relay.Run] says with a [*messagedb.InvalidError].
//
// A message is one of the category. Its key is the stream, its subject the category, its type and time are those of the message, its id is that with
// SourceConfig.Prefix before it, and its body an [Entry] as JSON.
//
// One process at a time delivers: where another one has the position stream, the relay waits until that ends or dies, so run as many as you like; see
// [messagedb.Client.OpenCategory]. It waits again if it cannot renew its claim for ten seconds, and begins no delivery then; one that is on its way may reach the receiver after the
// other process has delivered the same message, and newer ones of its key. Receivers that must not go back compare [Entry].Position, which rises in each stream.
// A sink of [NewSink] needs no such care.
func NewSource(config SourceConfig) (sinks.ClaimedSource, error) {
	if config.Client == nil {
		return nil, &sinks.InvalidError{Field: "Client", Value: "nil", Rule: "is required"}
	}
	if config.Consumer.Category == "" {
		return nil, &sinks.InvalidError{Field: "Consumer.Category", Value: "empty", Rule: "is required"}
	}
	if config.Consumer.BatchSize == 0 {
		config.Consumer.BatchSize = defaultBatch
	}
	return &source{config: config}, nil
}

type source struct {
	config SourceConfig

	mu     sync.Mutex
	cursor *messagedb.CategoryCursor // nil before the first call of Next, and after the claim was lost
	claim  int                       // numbers the cursors
	rest   []*messagedb.Message      // of Next: read, and not given
}

// position is that of a message, as one cursor has read it.
type position struct {
	claim   int
	message *messagedb.Message
}

func (s *source) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	cursor, claim, err := s.open(ctx)
	if err != nil {
		return nil, classify(err)
	}
	if len(s.rest) == 0 || isDone(cursor.Done()) {
		s.rest, err = cursor.Next(ctx)
	}
	hasGoneBack := errors.As(err, new(*messagedb.RewoundError)) && s.config.Consumer.Rewind == messagedb.RewindRestart
	if errors.Is(err, messagedb.ErrConsumerSuperseded) || hasGoneBack {
		s.Close()
		return nil, sinks.Resume(err)
	}
	if err != nil {
		return nil, classify(err)
	}
	page := s.rest[:min(limit, len(s.rest))]
	s.rest = s.rest[len(page):]
	messages := make([]sinks.Message, len(page))
	for i, m := range page {
		if messages[i], err = s.message(m, claim); err != nil {
			return nil, sinks.Permanent(err)
		}
	}
	return messages, nil
}

// open waits until this process has the position stream.
func (s *source) open(ctx context.Context) (*messagedb.CategoryCursor, int, error) {
	if cursor, claim := s.current(); cursor != nil {
		return cursor, claim, nil
	}
	cursor, err := s.config.Client.OpenCategory(ctx, s.config.Consumer)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = cursor
	s.claim++
	return cursor, s.claim, nil
}

func (s *source) current() (*messagedb.CategoryCursor, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor, s.claim
}

// classify marks what stays as it is. A server that is away, or without Message DB yet, is waited for.
func classify(err error) error {
	if errors.As(err, new(*messagedb.RewoundError)) || errors.As(err, new(*messagedb.InvalidError)) {
		return sinks.Permanent(err)
	}
	return err
}

func (s *source) Confirm(ctx context.Context, at any) error {
	p := at.(position) //nolint:forcetypeassert // it is ours
	cursor, claim := s.current()
	if cursor == nil || claim != p.claim {
		return messagedb.ErrConsumerSuperseded
	}
	return cursor.Save(ctx, p.message)
}

// Lost is closed when the claim is lost.
func (s *source) Lost() <-chan struct{} {
	if cursor, _ := s.current(); cursor != nil {
		return cursor.Done()
	}
	return nil
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close lets another process have the position stream at once.
func (s *source) Close() {
	s.mu.Lock()
	cursor := s.cursor
	s.cursor, s.rest = nil, nil
	s.mu.Unlock()
	if cursor != nil {
		cursor.Close()
	}
}

func (s *source) message(m *messagedb.Message, claim int) (sinks.Message, error) {
	body, err := json.Marshal(EntryOf(m))
	if err != nil {
		return sinks.Message{}, fmt.Errorf("message %s of category %s as JSON: %w", m.ID, s.config.Consumer.Category, err)
	}
	return sinks.Message{
		ID: s.config.Prefix + m.ID, Key: m.Stream.String(), Subject: s.config.Consumer.Category, Type: m.Type, Time: m.Time, Body: body, Position: position{claim, m},
	}, nil
}
