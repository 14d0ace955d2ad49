package kafka_test

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/kafka"
)

// newSink produces to a cluster. Close the client after the relay has ended.
func newSink(brokers ...string) (sinks.Sink, *kgo.Client, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.AllowIdempotentProduceCancellation())
	if err != nil {
		return nil, nil, err
	}
	sink, err := kafka.New(kafka.Config{Client: client})
	return sink, client, err
}

var _ = newSink // shown in docs/sinks.md
