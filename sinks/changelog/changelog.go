// Package changelog has the log of changes be a source of sinks: what became of each resource is delivered to another system, at least once and in the order
// of each resource.
package changelog

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/internal/claimed"
	"github.com/chariot-giving/delta/sinks/internal/jsonobject"
)

// Config is what [New] needs. Client and Consumer.Name are required.
type Config struct {
	// Client reads the log. It need not be started, and is closed by the caller after the relay has ended.
	Client *delta.Client
	// Consumer is whose position is kept in the database: that of the last entry which was delivered, and before which all were. Its Handle must be nil. Members of
	// a group are relays of their own. Default of its BatchSize: 500; a relay asks for more when it has room for more.
	Consumer delta.ChangeConsumer
	// Prefix begins the ids of messages. Give each database its own where several go to one receiver, which otherwise takes entries of two logs for the
	// same. Default: none.
	Prefix string
}

// Headers of messages, by which receivers go on with the trace of the inform.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// New returns a source, or a [*sinks.InvalidError]. What else is wrong with the consumer, [sinks.Relay.Run] says with a [*delta.InputError].
//
// A message is one entry. Its key is the kind and the object's id, its subject the kind, its type that of the change, and its body an [Entry] as JSON. Its id is
// the position of the entry, which is another one after the database was restored elsewhere.
//
// One process at a time delivers: where another one has the consumer, the relay waits until that ends or dies, so run as many as you like. It waits again if it cannot
// renew its claim for ten seconds, and begins no delivery then; one that is on its way may reach the receiver after the other process has delivered the same
// message, and newer ones of its key. Receivers that must not go back compare [Entry].ID, which rises for each object. A relay ends with a
// [*delta.ChangePositionError] where entries were removed before they were delivered, unless Consumer.Restart is set.
func New(config Config) (sinks.ClaimedSource, error) {
	if config.Client == nil {
		return nil, &sinks.InvalidError{Field: "Client", Value: "nil", Rule: "is required"}
	}
	if config.Consumer.BatchSize == 0 {
		config.Consumer.BatchSize = defaultBatch
	}
	if config.Consumer.Name == "" {
		return nil, &sinks.InvalidError{Field: "Consumer.Name", Value: "empty", Rule: "is required"}
	}
	return &claimed.Source[*delta.Change, delta.ChangePosition]{
		Open: func(ctx context.Context) (claimed.Cursor[*delta.Change, delta.ChangePosition], error) {
			cursor, err := config.Client.OpenChanges(ctx, config.Consumer)
			if err != nil {
				return nil, err
			}
			return cursor, nil
		},
		Message:    config.toMessage,
		Superseded: delta.ErrConsumerSuperseded,
		IsLost:     func(err error) bool { return errors.Is(err, delta.ErrConsumerSuperseded) },
		IsPermanent: func(err error) bool { // a server that is away is waited for
			return errors.As(err, new(*delta.ChangePositionError)) || errors.As(err, new(*delta.InputError)) || errors.Is(err, delta.ErrNoSchema)
		},
	}, nil
}

const defaultBatch = 500

// Entry is the body of a message: an entry of the log, with the names that `delta resources history` has. Members are added, and never renamed or removed.
type Entry struct {
	ID          int64           `json:"id"`
	Position    string          `json:"position"`
	Type        string          `json:"type"`
	Kind        string          `json:"kind"`
	ObjectID    string          `json:"object_id"`
	Namespace   string          `json:"namespace"`
	ResourceID  int64           `json:"resource_id"`
	Generation  int64           `json:"generation"`
	SyncCount   int64           `json:"sync_count"`
	At          time.Time       `json:"at"`
	Error       string          `json:"error,omitempty"`
	TraceParent string          `json:"trace_parent,omitempty"`
	Before      json.RawMessage `json:"before"`
	After       json.RawMessage `json:"after"`
}

// EntryOf is a change as an entry.
func EntryOf(c *delta.Change) Entry {
	return Entry{
		ID: c.ID, Position: string(c.Position), Type: string(c.Type), Kind: c.Kind, ObjectID: c.ObjectID, Namespace: c.Namespace, ResourceID: c.ResourceID,
		Generation: c.Generation, SyncCount: c.SyncCount, At: c.At, Error: c.Error, TraceParent: c.TraceParent, Before: c.Before, After: c.After,
	}
}

func (c *Config) toMessage(change *delta.Change) (sinks.Message, delta.ChangePosition, error) {
	m := sinks.Message{
		ID: c.Prefix + string(change.Position), Key: change.Kind + "/" + url.PathEscape(change.ObjectID), Subject: change.Kind, Type: string(change.Type), Time: change.At,
		Body: entryJSON(change),
	}
	if change.TraceParent != "" {
		m.Headers = map[string]string{HeaderTraceParent: change.TraceParent}
		if change.TraceState != "" {
			m.Headers[HeaderTraceState] = change.TraceState
		}
	}
	return m, change.Position, nil
}

// entryJSON is EntryOf as JSON, with the objects as they are in the database.
func entryJSON(c *delta.Change) []byte {
	const names = 300 // and what is between and around them, more or less
	w := jsonobject.Writer{Out: make([]byte, 0, names+len(c.Before)+len(c.After)+len(c.Error)+2*len(c.ObjectID))}
	w.Open()
	w.Int("id", c.ID)
	w.String("position", string(c.Position))
	w.String("type", string(c.Type))
	w.String("kind", c.Kind)
	w.String("object_id", c.ObjectID)
	w.String("namespace", c.Namespace)
	w.Int("resource_id", c.ResourceID)
	w.Int("generation", c.Generation)
	w.Int("sync_count", c.SyncCount)
	w.String("at", c.At.Format(time.RFC3339Nano))
	if c.Error != "" {
		w.String("error", c.Error)
	}
	if c.TraceParent != "" {
		w.String("trace_parent", c.TraceParent)
	}
	w.JSON("before", c.Before)
	w.JSON("after", c.After)
	w.Close()
	return w.Out
}
