package redis_test

import (
	"github.com/redis/go-redis/v9"

	"github.com/chariot-giving/delta/sinks"
	deltaredis "github.com/chariot-giving/delta/sinks/redis"
)

// newSink adds to streams of a server. A call ends with the relay's DeliveryTimeout.
func newSink(address string) (sinks.Sink, *redis.Client, error) {
	client := redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true})
	sink, err := deltaredis.New(deltaredis.Config{Client: client, MaxLen: 1_000_000})
	return sink, client, err
}

var _ = newSink // shown in docs/sinks.md
