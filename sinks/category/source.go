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

// SourceConfig configures [NewSource]. Client and Consumer.Category are required.
type SourceConfig struct {
	// Client reads the category. It must connect to the primary server.
	Client *messagedb.Client
	// Consumer has the category to read, and the identifier under which the position is saved: the position of the last message before
	// which all were delivered. Its Handler must be nil, and its ErrorPolicy and PositionInterval are ignored. Each member of a group is a
	// relay. With Rewind, if the store has gone back, the relay ends with a [*messagedb.RewoundError], or starts over at the first message.
	// Default of its BatchSize: 500.
	Consumer messagedb.ConsumerConfig
	// Prefix is a prefix of the ids of messages. Default: none, because the ids of the store are uuids.
	Prefix string
}

const defaultBatch = 500

// Entry is the body of a message as JSON: a message of the store. Members are added, and never renamed or removed.
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

// EntryOf converts a message of the store to an entry.
func EntryOf(m *messagedb.Message) Entry {
	return Entry{
		ID: m.ID, Stream: m.Stream.String(), Type: m.Type, Position: m.Position, GlobalPosition: m.GlobalPosition, Time: m.Time, Data: m.Data, Metadata: m.Metadata,
	}
}

// NewSource returns a source, or a [*sinks.InvalidError]. For any other error in the consumer's configuration, [sinks.Relay.Run] returns a
// [*messagedb.InvalidError].
//
// Each message of the category becomes a message of the source. Its key is the stream, its subject the category, its type and time are
// those of the message, its id is the message's id behind SourceConfig.Prefix, and its body is an [Entry] as JSON.
//
// One process at a time delivers. If another process has the position stream, the relay waits until that process ends or dies, so you may
// run several; see [messagedb.Client.OpenCategory]. The relay also waits again if it cannot renew its claim for ten seconds, and then
// starts no delivery. A delivery that is already running may reach the receiver after the other process has delivered the same message and
// newer ones of its key. Receivers that must not go back compare [Entry].Position, which rises in each stream. A sink of [NewSink] need not
// do that.
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
