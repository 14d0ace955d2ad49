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
	// at all in-sync replicas, as they are by default.
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
	topic := "delta." + illegal.ReplaceAllString(m.Subject, "_")
	return topic[:min(len(topic), longestTopic)]
}

// illegal is what a topic cannot have, and longestTopic how long it may be: see org.apache.kafka.common.internals.Topic.
var illegal = regexp.MustCompile(`[^a-zA-Z0-9._-]`)

const longestTopic = 249

// New returns a sink, or an [*sinks.InvalidError].
func New(config Config) (sinks.Sink, error) {
	if config.Client == nil {
		return nil, &sinks.InvalidError{Field: "Client", Value: "nil", Rule: "is required"}
	}
	if config.Topic == nil {
		config.Topic = DefaultTopic
	}
	return &sink{config}, nil
}

type sink struct{ config Config }

// Deliver produces all messages, and waits until the brokers have each. The key of a message is that of its record, so that its partition, and
// with it the order of Kafka, is the same for all messages of a key. A deleted row keeps its body: it is no tombstone.
func (s *sink) Deliver(ctx context.Context, messages []sinks.Message) []error {
	errs := make([]error, len(messages))
	index := make(map[*kgo.Record]int, len(messages))
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = s.record(m)
		index[records[i]] = i
	}
	for _, result := range s.config.Client.ProduceSync(ctx, records...) {
		errs[index[result.Record]] = classify(result.Err)
	}
	return errs
}

func (s *sink) record(m sinks.Message) *kgo.Record {
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

// classify marks errors that the same message will meet again.
func classify(err error) error {
	for _, permanent := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTopicException, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, permanent) {
			return sinks.Permanent(err)
		}
	}
	return err
}
