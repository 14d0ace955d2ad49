package nats_test

import (
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/chariot-giving/delta/sinks"
	deltanats "github.com/chariot-giving/delta/sinks/nats"
)

// newSink publishes to a server that may go away: the connection waits for it without end.
func newSink(address string) (sinks.Sink, *nats.Conn, error) {
	connection, err := nats.Connect(address, nats.MaxReconnects(-1))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(connection)
	if err != nil {
		return nil, nil, err
	}
	sink, err := deltanats.New(deltanats.Config{JetStream: js})
	return sink, connection, err
}

var _ = newSink // shown in docs/sinks.md
