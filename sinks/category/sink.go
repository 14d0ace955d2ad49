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

// SinkConfig configures [NewSink]. Client and Category are required.
type SinkConfig struct {
	// Client writes the messages. The caller closes its pool after the relay has ended.
	Client *messagedb.Client
	// Category is the category to write to: messages of one key go to one stream, CATEGORY-KEY.
	Category string
	// StreamID returns the id of the stream for a message. It must be the same for all messages of a key. Default: the key; for a message
	// without one the subject, or else the id.
	StreamID func(m sinks.Message) string
}

// Metadata is the metadata of a written message: the fields that have no other place in the store. Members are added, and never renamed or
// removed.
type Metadata struct {
	ID      string            `json:"id"`
	Key     string            `json:"key,omitempty"`
	Subject string            `json:"subject,omitempty"`
	Time    *time.Time        `json:"time,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

// NewSink returns a sink, or a [*sinks.InvalidError].
//
// Each message is written with the same type, the body as data, which must be JSON, and a [Metadata] as metadata. Its id is a uuid derived
// from the category and the message's id, so a message that comes again is found and not written twice. So a stream has each message once,
// in the order of its key, even while two processes take each other for dead. If sources can have equal ids, give them different prefixes:
// a different message with an id that exists is refused.
//
// A message that the store cannot hold is refused permanently: a body that is not JSON or that jsonb cannot hold, a message without a type,
// a name that is too long. Fifty messages are written in one transaction, which holds the lock of the category, and other writers of the
// category wait for it.
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

// maxPerTransaction is how many messages a transaction writes. Each has a savepoint, and Postgres keeps 64 of a transaction in memory.
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

// writeAll writes messages in a transaction, without those that are refused. It reports whether the transaction was committed.
func (s *sink) writeAll(ctx context.Context, messages []sinks.Message) (errs []error, ok bool) {
	// READ COMMITTED: a snapshot from before the lock of the category would not have the last writer's messages.
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

// endTimeout is how long a rollback may take. After it, the connection is closed.
const endTimeout = 5 * time.Second

// failFrom sets the error of all messages that are not refused: those before n were not committed, and those after n not tried.
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

// messageFields are the fields of an [messagedb.InvalidError] about the message. Others may be about the connection.
var messageFields = []messagedb.Field{
	messagedb.FieldID, messagedb.FieldType, messagedb.FieldData, messagedb.FieldMetadata, messagedb.FieldStream, messagedb.FieldStreamID, messagedb.FieldCategory,
}

// limitExceeded is the class of Postgres' errors for values that are too large or too deep, see
// https://www.postgresql.org/docs/current/errcodes-appendix.html.
const limitExceeded = "54"

// classifyWrite marks errors that will come again at each attempt as permanent.
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
