package category

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/internal/claimed"
)

// SourceConfig is what [NewSource] needs. Client and Consumer.Category are required.
type SourceConfig struct {
	// Client reads the category. It must be the primary server's.
	Client *messagedb.Client
	// Consumer says which category is read, and whose position is saved: that of the last message which was delivered, and before which all were. Its Handler must be nil, and
	// its ErrorPolicy and PositionInterval mean nothing. Members of a group are relays of their own. With Rewind, the relay ends with a [*messagedb.RewoundError]
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
	return &claimed.Source[*messagedb.Message, *messagedb.Message]{
		Open: func(ctx context.Context) (claimed.Cursor[*messagedb.Message, *messagedb.Message], error) {
			cursor, err := config.Client.OpenCategory(ctx, config.Consumer)
			if err != nil {
				return nil, err
			}
			return cursor, nil
		},
		Message:    config.toMessage,
		Superseded: messagedb.ErrConsumerSuperseded,
		IsLost: func(err error) bool {
			hasGoneBack := errors.As(err, new(*messagedb.RewoundError)) && config.Consumer.Rewind == messagedb.RewindRestart
			return errors.Is(err, messagedb.ErrConsumerSuperseded) || hasGoneBack
		},
		IsPermanent: func(err error) bool { // a server that is away, or without Message DB yet, is waited for
			return errors.As(err, new(*messagedb.RewoundError)) || errors.As(err, new(*messagedb.InvalidError))
		},
	}, nil
}

func (c *SourceConfig) toMessage(m *messagedb.Message) (sinks.Message, *messagedb.Message, error) {
	body, err := json.Marshal(EntryOf(m))
	if err != nil {
		return sinks.Message{}, nil, fmt.Errorf("message %s of category %s as JSON: %w", m.ID, c.Consumer.Category, err)
	}
	return sinks.Message{ID: c.Prefix + m.ID, Key: m.Stream.String(), Subject: c.Consumer.Category, Type: m.Type, Time: m.Time, Body: body}, m, nil
}
