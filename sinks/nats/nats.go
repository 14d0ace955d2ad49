// Package nats delivers messages to a stream of NATS JetStream.
package nats

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/chariot-giving/delta/sinks"
)

// Config configures [New]. JetStream is required.
type Config struct {
	// JetStream publishes the messages. The caller closes its connection after the relay has ended. Give the connection
	// nats.MaxReconnects(-1), so that it waits for a server that is away.
	JetStream jetstream.JetStream
	// Subject returns the subject to publish a message on. A stream must listen on it. Default: [DefaultSubject].
	Subject func(m sinks.Message) string
}

// Names of headers. The id is in Nats-Msg-Id, with which JetStream drops a message that comes again within the stream's duplicate window.
const (
	HeaderType    = "Delta-Type"
	HeaderKey     = "Delta-Key"
	HeaderSubject = "Delta-Subject"
)

// DefaultSubject returns delta, the subject of the message and its type, with dots between them. Dots in the subject make levels, such as
// delta.public.order.insert. Empty parts are left out, and characters that a subject cannot have are escaped with %.
func DefaultSubject(m sinks.Message) string {
	tokens := []string{"delta"}
	for token := range strings.SplitSeq(m.Subject+"."+m.Type, ".") {
		if token != "" {
			tokens = append(tokens, escapeToken(token))
		}
	}
	return strings.Join(tokens, ".")
}

// escapeToken escapes white space and wildcards, see https://docs.nats.io/nats-concepts/subjects.
func escapeToken(token string) string { return strings.ReplaceAll(url.PathEscape(token), "*", "%2A") }

// New returns a sink, or an [*sinks.InvalidError].
func New(config Config) (sinks.Sink, error) {
	if config.JetStream == nil {
		return nil, &sinks.InvalidError{Field: "JetStream", Value: "nil", Rule: "is required"}
	}
	if config.Subject == nil {
		config.Subject = DefaultSubject
	}
	return &sink{config}, nil
}

type sink struct{ config Config }

// Deliver publishes all messages, and waits until the stream has stored each.
func (s *sink) Deliver(ctx context.Context, messages []sinks.Message) []error {
	errs := make([]error, len(messages))
	futures := make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		futures[i], errs[i] = s.config.JetStream.PublishMsgAsync(s.toMessage(m), jetstream.WithMsgID(m.ID))
	}
	for i, future := range futures {
		if errs[i] == nil {
			errs[i] = awaitAck(ctx, future)
		}
		errs[i] = classifyError(errs[i])
	}
	return errs
}

func (s *sink) toMessage(m sinks.Message) *nats.Msg {
	out := nats.NewMsg(s.config.Subject(m))
	out.Data = m.Body
	for name, value := range m.Headers {
		out.Header.Set(name, oneLine(value))
	}
	for name, value := range map[string]string{HeaderType: m.Type, HeaderKey: m.Key, HeaderSubject: m.Subject} {
		if value != "" {
			out.Header.Set(name, oneLine(value))
		}
	}
	return out
}

// oneLine escapes line breaks, so that a value cannot begin another header.
func oneLine(value string) string { return lineBreaks.Replace(value) }

// lineBreaks is created once, because creating it takes longer than using it.
var lineBreaks = strings.NewReplacer("\r", "%0D", "\n", "%0A")

func awaitAck(ctx context.Context, future jetstream.PubAckFuture) error {
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// classifyError marks errors that the same message will cause again as permanent.
func classifyError(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject),
		errors.As(err, &api) && api.ErrorCode == streamMessageTooLarge:
		return sinks.Permanent(err)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("no stream listens on the subject, or the server is away: %w", err)
	}
	return err
}

// streamMessageTooLarge is the server's JSStreamMessageExceedsMaximumErr.
const streamMessageTooLarge = 10054
