// Package changelog is a source of sinks: it delivers the log of changes, with what happened to each resource, to another system, at least
// once and in the order of each resource.
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

// Config configures [New]. Client and Consumer.Name are required.
type Config struct {
	// Client reads the log. It need not be started. The caller closes it after the relay has ended.
	Client *delta.Client
	// Consumer names the consumer under which the position is saved in the database: the position of the last entry before which all were
	// delivered. Its Handle must be nil. Each member of a group is a relay. Default of its BatchSize: 500; a relay asks for more if it has
	// room for more.
	Consumer delta.ChangeConsumer
	// Prefix is a prefix of the ids of messages. If several databases go to one receiver, give each its own, because entries of two logs
	// can have the same id. Default: none.
	Prefix string
}

// Headers of messages, with which receivers continue the trace of the inform.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// New returns a source, or a [*sinks.InvalidError]. For any other error in the consumer's configuration, [sinks.Relay.Run] returns a
// [*delta.InputError].
//
// Each entry becomes a message. Its key is the kind and the object's id, its subject the kind, its type that of the change, and its body an
// [Entry] as JSON. Its id is the position of the entry, which differs after the database was restored elsewhere.
//
// One process at a time delivers. If another process has the consumer, the relay waits until that process ends or dies, so you may run
// several. The relay also waits again if it cannot renew its claim for ten seconds, and then starts no delivery. A delivery that is already
// running may reach the receiver after the other process has delivered the same message and newer ones of its key. Receivers that must not
// go back compare [Entry].ID, which rises for each object. A relay ends with a [*delta.ChangePositionError] if entries were removed before
// they were delivered, unless Consumer.Restart is set.
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
		IsPermanent: func(err error) bool { // anything else, such as a server that is away, is tried again
			return errors.As(err, new(*delta.ChangePositionError)) || errors.As(err, new(*delta.InputError)) || errors.Is(err, delta.ErrNoSchema)
		},
	}, nil
}

const defaultBatch = 500

// Entry is the body of a message as JSON: an entry of the log, with the names of `delta resources history`. Members are added, and never
// renamed or removed.
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

// EntryOf converts a change to an entry.
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

// entryJSON returns EntryOf as JSON, with the objects as they are in the database.
func entryJSON(c *delta.Change) []byte {
	const names = 300 // about the size of the names and the punctuation
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
