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

// Config is what [New] needs. Client is required.
type Config struct {
	// Client produces. It stays the caller's, who closes it after the relay has ended. Leave its producer idempotent and its acknowledgements
	// at all in-sync replicas, as they are by default. It must be made with [kgo.AllowIdempotentProduceCancellation]: without, a delivery
	// would wait for a broker that went away in the middle of it, however long [sinks.Config].DeliveryTimeout is, and nothing would say that it fails.
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

// DefaultTopic is delta. and the subject of the message, in which each character that a topic cannot have is an underscore.
func DefaultTopic(m sinks.Message) string {
	topic := "delta." + illegalChars.ReplaceAllString(m.Subject, "_")
	return topic[:min(len(topic), maxTopic)]
}

// illegal is what a topic cannot have, and longestTopic how long it may be: see org.apache.kafka.common.internals.Topic.
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

// errUnanswered is the error of a message of which it is not known whether the brokers have it: it comes again.
var errUnanswered = errors.New("the brokers have not answered in time")

// Deliver produces all messages, and waits until the brokers have each. The key of a message is that of its record, so that its partition, and
// with it the order of Kafka, is the same for all messages of a key. A deleted row keeps its body: it is no tombstone.
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
		case <-ctx.Done(): // the client gives up its records as well, when it looks at them the next time
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

// classifyError marks errors that the same message will meet again.
func classifyError(err error) error {
	for _, permanent := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTopicException, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, permanent) {
			return sinks.Permanent(err)
		}
	}
	return err
}
