// Package redis delivers messages to streams of Redis.
package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/chariot-giving/delta/sinks"
)

// Config configures [New]. Client is required.
type Config struct {
	// Client sends the commands. The caller closes it after the relay has ended. Set its option ContextTimeoutEnabled, so that a call ends
	// with [sinks.Config].DeliveryTimeout.
	Client redis.UniversalClient
	// Stream returns the key of the stream for a message. Default: [DefaultStream].
	Stream func(m sinks.Message) string
	// MaxLen is about how many of the newest entries a stream keeps: Redis removes whole nodes of it. Readers lose entries that they have
	// not read by then.
	//
	// Zero or positive. Defaults to 0: all are kept.
	MaxLen int64
	// MaxBytes is the maximum size of the body of a message, in bytes; a larger one is refused permanently. It must not exceed the server's
	// proto-max-bulk-len, because the server closes a connection that sends more.
	//
	// Zero or positive. Defaults to 512 MiB, the default of the server.
	MaxBytes int
}

// Names of fields. Empty fields are left out; each header of the message is a field with the prefix [HeaderPrefix].
const (
	FieldID      = "id"
	FieldType    = "type"
	FieldKey     = "key"
	FieldSubject = "subject"
	FieldTime    = "time" // in the format of RFC 3339
	FieldBody    = "body"
	HeaderPrefix = "header:"
)

// defaultMaxBytes is the default of proto-max-bulk-len, see https://github.com/redis/redis/blob/7.0/redis.conf.
const defaultMaxBytes = 512 << 20

// DefaultStream returns delta: and the subject of the message, or delta if it has none.
func DefaultStream(m sinks.Message) string {
	if m.Subject == "" {
		return "delta"
	}
	return "delta:" + m.Subject
}

// New returns a sink, or an [*sinks.InvalidError].
func New(config Config) (sinks.Sink, error) {
	switch {
	case config.Client == nil:
		return nil, &sinks.InvalidError{Field: "Client", Value: "nil", Rule: "is required"}
	case config.MaxLen < 0:
		return nil, &sinks.InvalidError{Field: "MaxLen", Value: fmt.Sprint(config.MaxLen), Rule: "must be positive, or 0 for no bound"}
	case config.MaxBytes < 0:
		return nil, &sinks.InvalidError{Field: "MaxBytes", Value: fmt.Sprint(config.MaxBytes), Rule: "must be positive, or 0 for the default of 512 MiB"}
	}
	if config.Stream == nil {
		config.Stream = DefaultStream
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = defaultMaxBytes
	}
	return &sink{config}, nil
}

type sink struct{ config Config }

// Deliver adds all messages to their streams in one pipeline, and waits for the answer to each.
func (s *sink) Deliver(ctx context.Context, messages []sinks.Message) []error {
	errs := make([]error, len(messages))
	added := make([]*redis.StringCmd, len(messages))
	pipe := s.config.Client.Pipeline()
	for i, m := range messages {
		if len(m.Body) > s.config.MaxBytes {
			errs[i] = sinks.Permanent(fmt.Errorf("the body has %d bytes, and MaxBytes is %d", len(m.Body), s.config.MaxBytes))
			continue
		}
		added[i] = pipe.XAdd(ctx, &redis.XAddArgs{Stream: s.config.Stream(m), MaxLen: s.config.MaxLen, Approx: s.config.MaxLen > 0, Values: entryFields(m)})
	}
	if _, err := pipe.Exec(ctx); err != nil && ctx.Err() != nil {
		return sinks.FailAll(len(messages), err)
	}
	for i, cmd := range added {
		if cmd != nil {
			errs[i] = explainError(cmd.Err())
		}
	}
	return errs
}

// entryFields returns the fields of an entry, in the same order at each delivery.
func entryFields(m sinks.Message) []any {
	all := []any{FieldID, m.ID}
	for _, f := range []struct{ name, value string }{{FieldType, m.Type}, {FieldKey, m.Key}, {FieldSubject, m.Subject}} {
		if f.value != "" {
			all = append(all, f.name, f.value)
		}
	}
	if !m.Time.IsZero() {
		all = append(all, FieldTime, m.Time.UTC().Format(time.RFC3339Nano))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		all = append(all, HeaderPrefix+name, m.Headers[name])
	}
	return append(all, FieldBody, m.Body)
}

// explainError explains errors that Redis words too tersely. None is permanent: Redis refuses for reasons of the server, its memory or the
// user's rights, which may change, and never for the message alone.
func explainError(err error) error {
	switch {
	case err == nil:
		return nil
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return fmt.Errorf("the key of the stream is taken by another type of value: %w", err)
	case redis.HasErrorPrefix(err, "OOM"):
		return fmt.Errorf("the memory of the server is full: raise maxmemory, or set MaxLen: %w", err)
	}
	return err
}
