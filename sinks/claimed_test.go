package sinks_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// claimedSource is a listSource that can lose its place to another process, which delivers some more messages.
type claimedSource struct {
	*listSource
	lost   chan struct{}
	closed int
}

func (c *claimedSource) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	c.mu.Lock()
	select {
	case <-c.lost:
		c.lost = make(chan struct{})
		c.rewind()
		c.mu.Unlock()
		return nil, sinks.Resume(errors.New("another process has it"))
	default:
	}
	c.mu.Unlock()
	return c.listSource.Next(ctx, limit)
}

func (c *claimedSource) Lost() <-chan struct{} { c.mu.Lock(); defer c.mu.Unlock(); return c.lost }

func (c *claimedSource) Close() { c.closed++ }

// Another process that takes over delivers the messages that were read and not confirmed. The relay must notice that even if the window is
// full and nothing can be confirmed, when no call of the source returns an error.
func TestALostClaimDiscardsUnconfirmedMessages(t *testing.T) {
	t.Parallel()
	source := &claimedSource{listSource: newListSource(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "a"}), lost: make(chan struct{})}
	var healed atomic.Bool
	sink := &recorder{fail: func(sinks.Message) error {
		if !healed.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.BatchSize, config.Window = 2, 2
	relay, stop := startRelay(t, config)
	awaitTrue(t, func() bool { return relay.Stats().Full && relay.Stats().Failed > 2 })

	source.mu.Lock()
	lost := source.lost
	source.confirmed = 2
	close(lost)
	source.mu.Unlock()
	awaitTrue(t, func() bool { return source.Lost() != lost })
	failed := relay.Stats().Failed
	awaitTrue(t, func() bool { return relay.Stats().Failed > failed+1 }) // of messages that were read again: the earlier deliveries have ended
	healed.Store(true)
	awaitTrue(t, source.isConfirmed(4))
	require.Equal(t, []string{"3", "4"}, sink.acceptedIDs())
	require.NoError(t, stop())
	require.Equal(t, 1, source.closed)
	require.Positive(t, relay.Stats().SourceErrors)
}
