// Package kafka delivers messages to topics of Kafka.
package kafka

import (
	"context"
	"errors"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/chariot-giving/delta/sinks"
)

// Config configures [New]. Client is required.
type Config struct {
	// Client produces the records. The caller closes it after the relay has ended. Keep its producer idempotent and its acknowledgements at
	// all in-sync replicas, the defaults. It must be created with [kgo.AllowIdempotentProduceCancellation]: otherwise a delivery would wait
	// for a broker that went away during it, longer than [sinks.Config].DeliveryTimeout, and report no failure.
	Client *kgo.Client
	// Topic returns the topic of a message. Default: [DefaultTopic].
	Topic func(m sinks.Message) string
}

// Names of headers.
const (
	HeaderID      = "delta-id"
	HeaderType    = "delta-type"
	HeaderSubject = "delta-subject"
)

// DefaultTopic returns delta. and the subject of the message, with an underscore for each character that a topic cannot have.
func DefaultTopic(m sinks.Message) string {
	topic := "delta." + illegalChars.ReplaceAllString(m.Subject, "_")
	return topic[:min(len(topic), maxTopic)]
}

// illegalChars are the characters that a topic cannot have, and maxTopic is its maximum length: see
// org.apache.kafka.common.internals.Topic.
var illegalChars = regexp.MustCompile(`[^a-zA-Z0-9._-]`)

const maxTopic = 249

// New returns a sink, or an [*sinks.InvalidError].
func New(config Config) (sinks.Sink, error) {
	if config.Client == nil {
		return nil, &sinks.InvalidError{Field: "Client", Value: "nil", Rule: "is required"}
	}
	idempotent, cancels := config.Client.OptValue(kgo.DisableIdempotentWrite) == false, config.Client.OptValue(kgo.AllowIdempotentProduceCancellation) == true
	if idempotent && !cancels {
		return nil, &sinks.InvalidError{
			Field: "Client", Value: "without kgo.AllowIdempotentProduceCancellation",
			Rule: "must be made with it, so that a delivery ends when its time is over",
		}
	}
	if config.Topic == nil {
		config.Topic = DefaultTopic
	}
	return &sink{config}, nil
}

type sink struct{ config Config }

// errUnanswered is the error of a message that the brokers may or may not have: it is delivered again.
var errUnanswered = errors.New("the brokers have not answered in time")

// Deliver produces all messages, and waits until the brokers have each. The key of a message is the key of its record, so all messages of a
// key go to the same partition, in which Kafka keeps their order. The record of a deleted row has a body: it is not a tombstone.
func (s *sink) Deliver(ctx context.Context, messages []sinks.Message) []error {
	type answer struct {
		at  int
		err error
	}
	answers := make(chan answer, len(messages))
	errs := make([]error, len(messages))
	for i, m := range messages {
		errs[i] = errUnanswered
		s.config.Client.Produce(ctx, s.toRecord(m), func(_ *kgo.Record, err error) { answers <- answer{i, err} })
	}
	for range messages {
		select {
		case a := <-answers:
			errs[a.at] = classifyError(a.err)
		case <-ctx.Done(): // the client also fails its records, when it next checks them
			return errs
		}
	}
	return errs
}

func (s *sink) toRecord(m sinks.Message) *kgo.Record {
	r := &kgo.Record{Topic: s.config.Topic(m), Value: m.Body, Timestamp: m.Time}
	if m.Key != "" {
		r.Key = []byte(m.Key)
	}
	for name, value := range m.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	for _, h := range []struct{ name, value string }{{HeaderID, m.ID}, {HeaderType, m.Type}, {HeaderSubject, m.Subject}} {
		if h.value != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.name, Value: []byte(h.value)})
		}
	}
	return r
}

// classifyError marks errors that the same message will cause again as permanent.
func classifyError(err error) error {
	for _, permanent := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTopicException, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, permanent) {
			return sinks.Permanent(err)
		}
	}
	return err
}
