//go:build linux

package category_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/category"
	"github.com/chariot-giving/delta/sinks/internal/sinktest"
)

// A server that crashes is waited for: afterwards its streams have each message once, and those of a key in order.
func TestAServerThatCrashesLosesNothing(t *testing.T) {
	t.Parallel()
	server := cdctest.NewPrivate(t)
	client := newClient(t, server.Pool)
	sink, err := category.NewSink(category.SinkConfig{Client: client, Category: "numbers"})
	require.NoError(t, err)
	sinktest.CheckOutage(t, 1000, sinks.Config{Sink: sink, BatchSize: 50, DeliveryTimeout: time.Minute}, func(relay *sinks.Relay) {
		awaitTrue(t, func() bool { return relay.Stats().Delivered >= 200 })
		server.Stop(syscall.SIGQUIT)
		failed := relay.Stats().Failed
		awaitTrue(t, func() bool { return relay.Stats().Failed > failed })
		server.Start()
	}, func() (all []sinktest.Delivered) {
		messages, err := client.ReadCategory(t.Context(), "numbers", messagedb.CategoryOptions{BatchSize: messagedb.Unlimited})
		require.NoError(t, err)
		require.Len(t, messages, 1000, "each of them once")
		for _, m := range messages {
			metadata, err := messagedb.DecodeMetadata[category.Metadata](m)
			require.NoError(t, err)
			require.Equal(t, "numbers-"+metadata.Key, m.Stream.String())
			all = append(all, sinktest.Delivered{ID: metadata.ID, Key: metadata.Key})
		}
		return all
	})
}
