package messagedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/chariot-giving/delta/internal/backoff"
)

// Field names the input that an [InvalidError] is about.
type Field string

// The fields that can be wrong.
const (
	FieldPool             Field = "Pool"
	FieldTx               Field = "Tx"
	FieldSchema           Field = "Schema"
	FieldStream           Field = "Stream"
	FieldStreamID         Field = "StreamID"
	FieldCategory         Field = "Category"
	FieldExpectedVersion  Field = "ExpectedVersion"
	FieldMessages         Field = "Messages"
	FieldID               Field = "ID"
	FieldType             Field = "Type"
	FieldData             Field = "Data"
	FieldMetadata         Field = "Metadata"
	FieldPosition         Field = "Position"
	FieldBatchSize        Field = "BatchSize"
	FieldCorrelation      Field = "Correlation"
	FieldCondition        Field = "Condition"
	FieldGroupMember      Field = "Group.Member"
	FieldGroupSize        Field = "Group.Size"
	FieldView             Field = "View"
	FieldHandler          Field = "Handler"
	FieldPolling          Field = "Polling"
	FieldIdentifier       Field = "Identifier"
	FieldPositionInterval Field = "PositionInterval"
	FieldErrorPolicy      Field = "ErrorPolicy"
	FieldPreviousSize     Field = "PreviousSize"
	FieldClientEncoding   Field = "client_encoding"
	FieldStore            Field = "Store"
	FieldCacheSize        Field = "CacheSize"
	FieldClone            Field = "Clone"
	FieldSnapshotInterval Field = "SnapshotInterval"
	FieldName             Field = "Name"
	FieldVersion          Field = "Version"
	FieldLimit            Field = "Limit"
	FieldRewind           Field = "Rewind"
)

// InvalidError is input that breaks a rule. Most are found without asking the server.
type InvalidError struct {
	// Field names the input that is wrong.
	Field Field
	// Value is the input, shortened if it is very long.
	Value string
	// Rule is the rule that the input breaks.
	Rule string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("messagedb: %s %q: %s", e.Field, e.Value, e.Rule)
}

func newInvalidError(field Field, value any, rule string) error {
	return &InvalidError{Field: field, Value: fmt.Sprint(value), Rule: rule}
}

// VersionConflictError reports a write that expected another version of the stream. Nothing was written.
type VersionConflictError struct {
	Stream StreamName
	// Expected is the version that the write named; [AnyVersion] if it named none, which can happen where Stale is true.
	Expected int64
	// Actual is the version of the stream, [NoStreamVersion] if there is none.
	Actual int64
	// Stale is true where the transaction runs at REPEATABLE READ or above, and somebody wrote the stream after its
	// snapshot was taken. Actual is then the least that the version can be, and the whole transaction has to be repeated.
	Stale bool
	cause error
}

func (e *VersionConflictError) Error() string {
	if e.Stale {
		return fmt.Sprintf("messagedb: stream %q was written after the snapshot of this transaction (version now at least %d, expected %s): repeat the transaction",
			e.Stream, e.Actual, versionName(e.Expected))
	}
	return fmt.Sprintf("messagedb: stream %q is at version %s, expected %s", e.Stream, versionName(e.Actual), versionName(e.Expected))
}

// Unwrap gives the server's own error, a *pgconn.PgError.
func (e *VersionConflictError) Unwrap() error { return e.cause }

func versionName(v int64) string {
	switch v {
	case NoStreamVersion:
		return "-1 (no stream)"
	case AnyVersion:
		return "any"
	default:
		return strconv.FormatInt(v, 10)
	}
}

// DuplicateIDError reports a write of a message with an id that the store has already. Nothing was written. With [Idempotent], the
// message that is there differs from the one to be written, or only some of the messages of the call are there.
type DuplicateIDError struct {
	// ID is the id that both have.
	ID string
	// Stream and Position are the place of the message in the store. Without [Idempotent] they are not known: empty and -1.
	Stream   StreamName
	Position int64
	// Different reports that the stored message has another content. It is set with [Idempotent] only.
	Different bool
	cause     error
}

func (e *DuplicateIDError) Error() string {
	switch {
	case e.Stream == "":
		return fmt.Sprintf("messagedb: a message with the id %s is in the store already", e.ID)
	case e.Different:
		return fmt.Sprintf("messagedb: a message with the id %s and other content is in the store already, at position %d of stream %q", e.ID, e.Position, e.Stream)
	default:
		return fmt.Sprintf("messagedb: message %s is in the store already, at position %d of stream %q, but the others of this call are not, or stand elsewhere", e.ID, e.Position, e.Stream)
	}
}

// Unwrap gives the server's own error, a *pgconn.PgError.
func (e *DuplicateIDError) Unwrap() error { return e.cause }

// ConditionDisabledError reports a read with a condition on a server where the setting message_store.sql_condition is not on.
type ConditionDisabledError struct {
	Condition string
	cause     error
}

func (e *ConditionDisabledError) Error() string {
	return fmt.Sprintf("messagedb: condition %q: the server's setting message_store.sql_condition is not on", e.Condition)
}

// Unwrap gives the server's own error, a *pgconn.PgError.
func (e *ConditionDisabledError) Unwrap() error { return e.cause }

// NotInstalledError reports that Message DB was not found in a database.
type NotInstalledError struct {
	// Schema is the schema that was searched.
	Schema string
	cause  error
}

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("messagedb: Message DB 1.3 is not in schema %q of this database: install it, or call messagedb.Migrate (%v)", e.Schema, e.cause)
}

// Unwrap gives the server's own error, a *pgconn.PgError.
func (e *NotInstalledError) Unwrap() error { return e.cause }

// ErrNoMessage is returned by [Client.LastMessage] where there is none.
var ErrNoMessage = errors.New("messagedb: there is no such message")

// SQLSTATEs that have a meaning here.
const (
	stateRaised          = "P0001"
	stateUnique          = "23505"
	stateTooLong         = "54000"
	stateNoFunction      = "42883"
	stateNoSchema        = "3F000"
	stateNoTable         = "42P01"
	stateBadText         = "22P02"
	stateOutOfRange      = "22003"
	stateNoSuchCharacter = "22P05"
	stateReadOnly        = "25006"
	stateNoObject        = "42704"

	stateNoPrepared        = "26000"
	stateDuplicatePrepared = "42P05"
)

var (
	wrongVersion = regexp.MustCompile(`(?s)^Wrong expected version: (-?\d+) \(Stream: (.*), Stream Version: (-?\d+)\)$`)
	takenID      = regexp.MustCompile(`\(id\)=\(([^)]*)\)`)
	takenPlace   = regexp.MustCompile(`(?s)=\(.*, (\d+)\)`)
)

// call describes a statement for its errors. It is formatted only when there is an error.
type call struct {
	doing     string // to what stream or category names
	stream    StreamName
	category  string
	place     string // what from is: a position or a global position; empty if it does not matter
	from      int64
	expected  int64
	condition string
	writes    bool
}

func (about call) String() string {
	text := about.doing
	if name := cmp.Or(about.stream.String(), about.category); name != "" {
		text += " " + strconv.Quote(name)
	}
	if about.place != "" {
		text += fmt.Sprintf(" from %s %d", about.place, about.from)
	}
	return text
}

// explainError converts an error of the server to a type of this package, or adds the description of the call.
func (c *Client) explainError(err error, about call) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if typed := c.convertServerError(pg, about); typed != nil {
			return typed
		}
	}
	err = explainReadOnly(err)
	if pg != nil && (pg.Code == stateNoPrepared || pg.Code == stateDuplicatePrepared) {
		return fmt.Errorf("messagedb: %s: %s: %w", about, noPreparedReason, err)
	}
	return fmt.Errorf("messagedb: %s: %w", about, err)
}

// noPreparedReason is the remedy behind a pooler that may give each transaction another connection of the server: statements that were prepared
// before are missing there.
const noPreparedReason = "the pool connects through a pooler that has no prepared statements: give PgBouncer (1.21 or later) max_prepared_statements, " +
	"or the pool's connection string default_query_exec_mode=cache_describe"

// readOnlyReason says why a connection may not write, which Postgres leaves out. Such a setting is the caller's, and is not overridden.
const readOnlyReason = "default_transaction_read_only is on for the role, the database or the pool's connection string, or the server is a standby"

// explainReadOnly adds that to an error which is of it.
func explainReadOnly(err error) error {
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == stateReadOnly {
		return fmt.Errorf("%s: %w", readOnlyReason, err)
	}
	return err
}

func (c *Client) convertServerError(pg *pgconn.PgError, about call) error {
	switch pg.Code {
	case stateRaised:
		return convertRaised(pg, about)
	case stateUnique:
		return convertUniqueViolation(pg, about)
	case stateTooLong:
		if pg.ConstraintName != "" { // an index that the row does not fit into; a JSON value that is too large has none
			return newInvalidError(FieldStream, about.stream, "is too long for an index of Postgres: "+pg.Message)
		}
	case stateNoSuchCharacter:
		return newInvalidError(FieldData, pg.Message, `must not contain \u0000, which jsonb cannot hold, nor what the encoding of the database has no character for: UTF8 has all`)
	case stateBadText, stateOutOfRange:
		// The client checks that it is JSON, but not what jsonb refuses beyond that: half of a surrogate pair, a huge number.
		// Where that was found is said by the routine, because messages are in the language of lc_messages.
		if about.writes && !strings.Contains(pg.Routine, "int8") && !strings.Contains(pg.Routine, "int64") {
			return newInvalidError(FieldData, pg.Message, "must be JSON that jsonb can hold: "+pg.Detail)
		}
	case stateNoObject:
		if refused := asRowSecurity(pg); refused != nil {
			return refused
		}
	case stateNoFunction, stateNoSchema, stateNoTable:
		// A condition can name what does not exist, too.
		if about.condition == "" {
			return &NotInstalledError{Schema: c.config.Schema, cause: pg}
		}
	}
	return nil
}

// convertRaised reads the errors that the server's functions raise.
func convertRaised(pg *pgconn.PgError, about call) error {
	if m := wrongVersion.FindStringSubmatch(pg.Message); m != nil {
		expected, _ := strconv.ParseInt(m[1], 10, 64)
		actual, _ := strconv.ParseInt(m[3], 10, 64)
		return &VersionConflictError{Stream: StreamName(m[2]), Expected: expected, Actual: actual, cause: pg}
	}
	switch {
	case pg.Message == "Retrieval with SQL condition is not activated":
		return &ConditionDisabledError{Condition: about.condition, cause: pg}
	case strings.HasPrefix(pg.Message, "Must be a stream name"):
		return newInvalidError(FieldStream, about.stream, pg.Message)
	case strings.HasPrefix(pg.Message, "Must be a category"):
		return newInvalidError(FieldCategory, about.category, pg.Message)
	case strings.HasPrefix(pg.Message, "Correlation must be a category"):
		return newInvalidError(FieldCorrelation, about.category, pg.Message)
	default:
		return nil
	}
}

// convertUniqueViolation reads violations of the two unique indexes.
func convertUniqueViolation(pg *pgconn.PgError, about call) error {
	switch pg.ConstraintName {
	case "messages_id":
		e := &DuplicateIDError{Position: -1, cause: pg}
		if m := takenID.FindStringSubmatch(pg.Detail); m != nil {
			e.ID = m[1]
		}
		return e
	case "messages_stream":
		// write_message holds the lock of the category, so only a snapshot older than the stream leads here.
		e := &VersionConflictError{Stream: about.stream, Expected: about.expected, Actual: NoStreamVersion, Stale: true, cause: pg}
		if m := takenPlace.FindStringSubmatch(pg.Detail); m != nil {
			e.Actual, _ = strconv.ParseInt(m[1], 10, 64)
		}
		return e
	default:
		return nil
	}
}

// IsTransient reports whether a failed call may succeed when it is repeated unchanged: the connection was lost or
// refused, the server is starting, stopping or out of a resource, or a deadlock or serialization failure ended the
// transaction. A transaction of the caller's has then to be repeated as a whole. Errors of a context are not transient, and
// neither is a pool that was closed: it never opens again.
func IsTransient(err error) bool {
	var pg *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, puddle.ErrClosedPool), isOurs(err):
		return false
	case errors.As(err, &pg):
		return backoff.IsTransientCode(pg.Code)
	default:
		// Not from the server: it came from the network, the pool, or a time limit of one call.
		return true
	}
}

// isOurs reports whether an error has one of our types that a retry cannot help with.
func isOurs(err error) bool {
	var bad *InvalidError
	var decode *DecodeError
	var handler *HandlerError
	var position *PositionConflictError
	var projection *ProjectionError
	var rewound *RewoundError
	var hidden *RowSecurityError
	return errors.As(err, &bad) || errors.As(err, &decode) || errors.As(err, &handler) || errors.As(err, &position) ||
		errors.As(err, &projection) || errors.As(err, &rewound) || errors.As(err, &hidden) || errors.Is(err, ErrNoMessage) ||
		errors.Is(err, ErrConsumerSuperseded) || errors.Is(err, errCursorClosed)
}

// HandlerError reports that a handler failed, and for which message.
type HandlerError struct {
	Message *Message
	// Attempts is how many times it was tried in all.
	Attempts int
	Err      error
}

func (e *HandlerError) Error() string {
	return fmt.Sprintf("messagedb: handling message %s (%s, position %d of stream %q, global position %d), attempt %d: %v",
		e.Message.ID, e.Message.Type, e.Message.Position, e.Message.Stream, e.Message.GlobalPosition, e.Attempts, e.Err)
}

// Unwrap gives the handler's own error.
func (e *HandlerError) Unwrap() error { return e.Err }

// PanicError reports that a handler panicked.
type PanicError struct {
	// Value is the argument of the panic.
	Value any
	// Stack is the stack of the panic, as of runtime/debug.Stack.
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// PositionConflictError reports that another consumer wrote the position stream: two of them run with the same
// identifier and member. The consumer has stopped. No message is lost, but both may have handled some messages.
type PositionConflictError struct {
	// Stream is the position stream.
	Stream StreamName
	cause  error
}

func (e *PositionConflictError) Error() string {
	return fmt.Sprintf("messagedb: another consumer writes the position stream %q: give each its own identifier or group member (%v)", e.Stream, e.cause)
}

// Unwrap gives the conflict, a *VersionConflictError.
func (e *PositionConflictError) Unwrap() error { return e.cause }
