package category

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
)

// SinkConfig is what [NewSink] needs. Client and Category are required.
type SinkConfig struct {
	// Client writes the messages. Its pool stays the caller's, who closes it after the relay has ended.
	Client *messagedb.Client
	// Category is what is written to: messages of one key to one stream, CATEGORY-KEY.
	Category string
	// StreamID returns the id of the stream for a message. It must be the same for all messages of a key. Default: the key; for one without it the subject, and else the id.
	StreamID func(m sinks.Message) string
}

// Metadata is that of a message that a sink has written: what the store has no other place for. Members are added, and never renamed or removed.
type Metadata struct {
	ID      string            `json:"id"`
	Key     string            `json:"key,omitempty"`
	Subject string            `json:"subject,omitempty"`
	Time    *time.Time        `json:"time,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

// NewSink returns a sink, or a [*sinks.InvalidError].
//
// A message becomes one of the store, of the same type, whose data is the body, which must be JSON, and whose metadata is a [Metadata]. Its id is a uuid made of the category and the message's id, by
// which one that comes again is found in its place, and not written again: so a stream has each message once, and in the order of its key, also while
// two processes take each other for dead. Give sources whose ids are alike different prefixes: another message with the id of one that is there is refused.
//
// Refused for good is what the store cannot have: a body that is no JSON, or that jsonb cannot hold, a message without a type, a name that is too long. Fifty messages are written in one
// transaction, which holds the lock of the category that each of its writers waits for.
func NewSink(config SinkConfig) (sinks.Sink, error) {
	if config.Client == nil {
		return nil, &sinks.InvalidError{Field: "Client", Value: "nil", Rule: "is required"}
	}
	var invalid *messagedb.InvalidError
	if _, err := messagedb.NewStreamName(config.Category, "1"); errors.As(err, &invalid) {
		return nil, &sinks.InvalidError{Field: "Category", Value: config.Category, Rule: invalid.Rule}
	}
	if config.StreamID == nil {
		config.StreamID = func(m sinks.Message) string { return cmp.Or(m.Key, m.Subject, m.ID) }
	}
	return &sink{config}, nil
}

type sink struct{ config SinkConfig }

// perTransaction is how many messages are written at once. Each has a savepoint, and Postgres keeps 64 of a transaction in memory.
const maxPerTransaction = 50

func (s *sink) Deliver(ctx context.Context, messages []sinks.Message) []error {
	errs := make([]error, 0, len(messages))
	for page := range slices.Chunk(messages, maxPerTransaction) {
		done, ok := s.writeAll(ctx, page)
		errs = append(errs, done...)
		if !ok {
			return append(errs, sinks.FailAll(len(messages)-len(errs), sinks.ErrNotTried)...)
		}
	}
	return errs
}

// writeAll writes messages in a transaction. It reports whether that was committed: without those that were refused.
func (s *sink) writeAll(ctx context.Context, messages []sinks.Message) (errs []error, ok bool) {
	// A snapshot that is older than the lock of the category would not have what others wrote before.
	tx, err := s.config.Client.Pool().BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
	if err != nil {
		return sinks.FailAll(len(messages), err), false
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		_ = tx.Rollback(ending) // does nothing after a commit
	}()
	errs = make([]error, len(messages))
	client := s.config.Client.InTx(tx)
	for i, m := range messages {
		if errs[i] = s.writeMessage(ctx, client, m); errs[i] != nil && !sinks.IsPermanent(errs[i]) {
			failFrom(errs, i, errs[i])
			return errs, false
		}
	}
	if err := tx.Commit(ctx); err != nil {
		failFrom(errs, len(errs), err)
		return errs, false
	}
	return errs, true
}

// endTimeout is how long a rollback may take. The connection is closed then.
const endTimeout = 5 * time.Second

// failFrom has all messages fail that are not refused: those before n were not committed, and the others not tried.
func failFrom(errs []error, n int, err error) {
	for i := range errs {
		if errs[i] == nil && i < n {
			errs[i] = err
		} else if i > n {
			errs[i] = sinks.ErrNotTried
		}
	}
}

func (s *sink) writeMessage(ctx context.Context, client *messagedb.Client, m sinks.Message) error {
	stream, err := messagedb.NewStreamName(s.config.Category, s.config.StreamID(m))
	if err != nil {
		return classifyWrite(err)
	}
	metadata := Metadata{ID: m.ID, Key: m.Key, Subject: m.Subject, Headers: m.Headers}
	if !m.Time.IsZero() {
		at := m.Time.UTC()
		metadata.Time = &at
	}
	message := messagedb.ProposedMessage{ID: messagedb.DerivedID(s.config.Category, m.ID), Type: m.Type, Data: messagedb.NoData, Metadata: metadata}
	if m.Body != nil {
		message.Data = json.RawMessage(m.Body)
	}
	_, err = client.WriteMessage(ctx, stream, message, messagedb.AnyVersion, messagedb.Idempotent())
	return classifyWrite(err)
}

// ofMessage are the fields of an [messagedb.InvalidError] that is about the message. Another one may be about the connection.
var messageFields = []messagedb.Field{
	messagedb.FieldID, messagedb.FieldType, messagedb.FieldData, messagedb.FieldMetadata, messagedb.FieldStream, messagedb.FieldStreamID, messagedb.FieldCategory,
}

// limitExceeded is the class of Postgres' errors for what is too large or too deep, see https://www.postgresql.org/docs/current/errcodes-appendix.html.
const limitExceeded = "54"

// classifyWrite marks what the store will refuse each time.
func classifyWrite(err error) error {
	var invalid *messagedb.InvalidError
	var server *pgconn.PgError
	isRefused := errors.As(err, &invalid) && slices.Contains(messageFields, invalid.Field) || errors.As(err, new(*messagedb.DuplicateIDError)) ||
		errors.As(err, &server) && strings.HasPrefix(server.Code, limitExceeded)
	if isRefused {
		return sinks.Permanent(err)
	}
	return err
}
