package messagedb

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Message is a message of the store.
type Message struct {
	// ID is the message's uuid, in lower case with hyphens.
	ID string
	// Stream is the stream that it is in.
	Stream StreamName
	// Type is the kind of the message.
	Type string
	// Position is its place in its stream; the first is 0.
	Position int64
	// GlobalPosition is its place among all messages; the first is 1. Numbers can be missing.
	GlobalPosition int64
	// Data and Metadata are the JSON as the server has it, which orders keys and drops white space. Nil means NULL.
	Data, Metadata json.RawMessage
	// Time is when the transaction that wrote it began, in UTC.
	Time time.Time
}

// ProposedMessage is a message to be written.
type ProposedMessage struct {
	// ID is a uuid, as 32 hexadecimal digits with or without hyphens. Default: [NewID], a new one for each write.
	ID string
	// Type is the kind of the message. Required.
	Type string
	// Data is marshalled to JSON; a json.RawMessage is written as it is. Required; [NoData] writes NULL.
	Data any
	// Metadata is marshalled to JSON, too. Default: nil, which writes NULL.
	Metadata any
}

// NoData is the Data of a message that has none: NULL is written.
var NoData any = noData{}

type noData struct{}

// DecodeError is a payload that does not fit the type that it was to become.
type DecodeError struct {
	// Message is the message that does not decode.
	Message *Message
	// Field is FieldData or FieldMetadata.
	Field Field
	// Into is the Go type.
	Into string
	// Err is the error of encoding/json.
	Err error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("messagedb: %s of message %s (%s, position %d of stream %q) into %s: %v",
		e.Field, e.Message.ID, e.Message.Type, e.Message.Position, e.Message.Stream, e.Into, e.Err)
}

// Unwrap gives the error of encoding/json.
func (e *DecodeError) Unwrap() error { return e.Err }

// Decode unmarshals the data of a message. NULL gives the zero value. The error is a [*DecodeError].
func Decode[T any](m *Message) (T, error) {
	return decodeField[T](m, FieldData, m.Data)
}

// DecodeMetadata unmarshals the metadata of a message. NULL gives the zero value. The error is a [*DecodeError].
func DecodeMetadata[T any](m *Message) (T, error) {
	return decodeField[T](m, FieldMetadata, m.Metadata)
}

func decodeField[T any](m *Message, field Field, raw json.RawMessage) (value T, err error) {
	if raw == nil {
		return value, nil
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		var zero T
		return zero, &DecodeError{Message: m, Field: field, Into: fmt.Sprintf("%T", zero), Err: err}
	}
	return value, nil
}

// NewID makes a uuid of version 7: ids that are made one after another stand next to each other in the index.
func NewID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return formatID(id[:])
}

func formatID(id []byte) string {
	text := hex.AppendEncode(make([]byte, 0, 36), id[:4])
	for _, part := range [...][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		text = hex.AppendEncode(append(text, '-'), part)
	}
	return string(text)
}

// canonicalID checks a uuid and writes it as the server does.
func canonicalID(id string) (string, error) {
	digits := id
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' {
		digits = id[:8] + id[9:13] + id[14:18] + id[19:23] + id[24:]
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != 16 {
		return "", newInvalidError(FieldID, shortenText(id), "must be a uuid: 32 hexadecimal digits, with hyphens after the 8th, 12th, 16th and 20th, or without")
	}
	return formatID(b), nil
}

// row is a message as it is sent to the server.
type row struct {
	id, kind       string
	data, metadata *string
}

// prepareRow checks a message and marshals what it holds.
func (m ProposedMessage) prepareRow() (r row, err error) {
	r.kind = m.Type
	if m.Type == "" {
		return r, newInvalidError(FieldType, "", "must not be empty")
	}
	if err := validText(FieldType, m.Type); err != nil {
		return r, err
	}
	if m.ID == "" {
		r.id = NewID()
	} else if r.id, err = canonicalID(m.ID); err != nil {
		return r, err
	}
	if m.Data == nil {
		return r, newInvalidError(FieldData, "nil", "must not be nil; NoData writes NULL")
	}
	if m.Data != NoData {
		if r.data, err = marshalField(FieldData, m.Data); err != nil {
			return r, err
		}
	}
	if m.Metadata != nil {
		r.metadata, err = marshalField(FieldMetadata, m.Metadata)
	}
	return r, err
}

// marshalField gives the JSON of a value, checked for what jsonb cannot hold. NULL for a json.RawMessage that is nil.
func marshalField(field Field, value any) (*string, error) {
	if raw, ok := value.(json.RawMessage); ok && raw == nil {
		return nil, nil
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil, newInvalidError(field, fmt.Sprintf("%T", value), "must marshal to JSON: "+err.Error())
	}
	if !utf8.Valid(b) {
		return nil, newInvalidError(field, shortenText(string(b)), "must be valid UTF-8")
	}
	if hasNUL(b) {
		return nil, newInvalidError(field, shortenText(string(b)), `must not contain \u0000, which jsonb cannot hold`)
	}
	text := string(b)
	return &text, nil
}

// hasNUL reports whether JSON contains an escaped NUL, as opposed to an escaped backslash before u0000.
func hasNUL(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 || i+1 >= len(b) {
			return false
		}
		if bytes.HasPrefix(b[i+1:], []byte("u0000")) {
			return true
		}
		b = b[i+2:]
	}
}

// shortenText keeps errors readable.
func shortenText(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

var errNothing = errors.New("the server returned nothing")
