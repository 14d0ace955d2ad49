// Package changelog has the log of changes be a source of sinks: what became of each resource is delivered to another system, at least once and in the order
// of each resource.
package changelog

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/sinks"
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
	return &source{config: config}, nil
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

type source struct {
	config Config

	mu     sync.Mutex
	cursor *delta.ChangeCursor // nil before the first call of Next, and after the claim was lost
	claim  int                 // numbers the cursors
	rest   []*delta.Change     // of Next: read, and not given
}

// position is that of an entry, as one cursor has read it.
type position struct {
	claim int
	at    delta.ChangePosition
}

func (s *source) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	cursor, claim, err := s.open(ctx)
	if err != nil {
		return nil, classify(err)
	}
	if len(s.rest) == 0 || isDone(cursor.Done()) {
		s.rest, err = cursor.Next(ctx)
	}
	if errors.Is(err, delta.ErrConsumerSuperseded) {
		s.Close()
		return nil, sinks.Resume(err)
	}
	if err != nil {
		return nil, classify(err)
	}
	page := s.rest[:min(limit, len(s.rest))]
	s.rest = s.rest[len(page):]
	messages := make([]sinks.Message, len(page))
	for i, change := range page {
		messages[i] = s.message(change, claim)
	}
	return messages, nil
}

// open waits until this process has the consumer.
func (s *source) open(ctx context.Context) (*delta.ChangeCursor, int, error) {
	if cursor, claim := s.current(); cursor != nil {
		return cursor, claim, nil
	}
	cursor, err := s.config.Client.OpenChanges(ctx, s.config.Consumer)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = cursor
	s.claim++
	return cursor, s.claim, nil
}

func (s *source) current() (*delta.ChangeCursor, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor, s.claim
}

// classify marks what stays as it is. A server that is away is waited for.
func classify(err error) error {
	if errors.As(err, new(*delta.ChangePositionError)) || errors.As(err, new(*delta.InputError)) || errors.Is(err, delta.ErrNoSchema) {
		return sinks.Permanent(err)
	}
	return err
}

func (s *source) Confirm(ctx context.Context, at any) error {
	p := at.(position) //nolint:forcetypeassert // it is ours
	cursor, claim := s.current()
	if cursor == nil || claim != p.claim {
		return delta.ErrConsumerSuperseded
	}
	return cursor.Save(ctx, p.at)
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

// Close lets another process have the consumer at once.
func (s *source) Close() {
	s.mu.Lock()
	cursor := s.cursor
	s.cursor, s.rest = nil, nil
	s.mu.Unlock()
	if cursor != nil {
		cursor.Close()
	}
}

func (s *source) message(c *delta.Change, claim int) sinks.Message {
	m := sinks.Message{
		ID: s.config.Prefix + string(c.Position), Key: c.Kind + "/" + url.PathEscape(c.ObjectID), Subject: c.Kind, Type: string(c.Type), Time: c.At, Body: entryJSON(c),
		Position: position{claim, c.Position},
	}
	if c.TraceParent != "" {
		m.Headers = map[string]string{HeaderTraceParent: c.TraceParent}
		if c.TraceState != "" {
			m.Headers[HeaderTraceState] = c.TraceState
		}
	}
	return m
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
