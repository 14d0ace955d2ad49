package category_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/messagedb"
	"github.com/chariot-giving/delta/sinks"
	"github.com/chariot-giving/delta/sinks/category"
)

func TestMessagesOfACategoryAreDeliveredOnceInOrder(t *testing.T) {
	t.Parallel()
	client := newClient(t, cdctest.New(t).Pool)
	writeMessages(t, client, 100, 3)
	sink := &recorder{}
	_, stop := startRelay(t, client, sink)
	awaitTrue(t, func() bool { return len(sink.allAccepted()) == 100 && countBehind(t, client) == 0 })
	require.NoError(t, stop())
	next := map[string]int64{}
	for _, m := range sink.allAccepted() {
		e := entryOf(t, m)
		require.Equal(t, "here:"+e.ID, m.ID)
		require.Equal(t, e.Stream, m.Key)
		require.Equal(t, "account", m.Subject)
		require.Equal(t, "Happened", m.Type)
		require.Equal(t, e.Time, m.Time)
		require.Equal(t, next[e.Stream], e.Position)
		next[e.Stream]++
		require.Positive(t, e.GlobalPosition)
		require.JSONEq(t, `{"by": "test"}`, string(e.Metadata))
		var stream, n int
		_, err := fmt.Sscanf(e.Stream+" "+string(e.Data), `account-%d {"n":%d}`, &stream, &n)
		require.NoError(t, err, string(e.Data))
		require.Equal(t, stream, n%3)
	}

	writeMessages(t, client, 1, 1)
	again := &recorder{}
	_, stop = startRelay(t, client, again)
	awaitTrue(t, func() bool { return countBehind(t, client) == 0 })
	require.NoError(t, stop())
	require.Len(t, again.allAccepted(), 1, "what was confirmed does not come again")
}

// Of two relays, one delivers, and the other continues when the first ends.
func TestASecondRelayTakesOver(t *testing.T) {
	t.Parallel()
	client := newClient(t, cdctest.New(t).Pool)
	first, second := &recorder{}, &recorder{}
	_, stop := startRelay(t, client, first)
	writeMessages(t, client, 1, 1)
	awaitTrue(t, func() bool { return len(first.allAccepted()) == 1 })
	startRelay(t, client, second)
	writeMessages(t, client, 2, 1)
	awaitTrue(t, func() bool { return len(first.allAccepted()) == 3 })
	require.NoError(t, stop())
	writeMessages(t, client, 1, 1)
	awaitTrue(t, func() bool { return len(second.allAccepted()) == 1 })
	require.EqualValues(t, 3, entryOf(t, second.allAccepted()[0]).Position)
}

// However the sink fails, and however often another process takes over and starts before the last delivered message, the target category
// has each message once, and those of a key in order.
func TestACategoryHasEachMessageOnceDespiteTakeovers(t *testing.T) {
	t.Parallel()
	client := newClient(t, cdctest.New(t).Pool)
	const n, streams, takeovers = 600, 7, 5
	writeMessages(t, client, n, streams)
	to, err := category.NewSink(category.SinkConfig{Client: client, Category: "copy"})
	require.NoError(t, err)
	sink := sinks.SinkFunc(func(ctx context.Context, messages []sinks.Message) []error {
		errs := to.Deliver(ctx, messages)
		for i := range messages {
			if rand.IntN(4) == 0 { // the message is written, and the answer is lost
				if errs == nil {
					errs = make([]error, len(messages))
				}
				errs[i] = context.DeadlineExceeded
			}
		}
		return errs
	})
	relay, _ := startRelay(t, client, sink)
	var before int64
	for range takeovers {
		// More than the deliveries that a relay without a claim still ends, so it has a claim again.
		awaitTrue(t, func() bool { return relay.Stats().Delivered >= before+n/(takeovers+2) })
		errs := relay.Stats().SourceErrors
		_, err := client.WriteMessage(t.Context(), "account:position-sink", messagedb.ProposedMessage{
			Type: "Recorded", Data: map[string]int{"position": 1}, Metadata: map[string]any{"run": messagedb.NewID()},
		}, messagedb.AnyVersion)
		require.NoError(t, err)
		writeMessages(t, client, 1, 1) // a relay that has delivered everything notices with the next position that it saves
		awaitTrue(t, func() bool { return relay.Stats().SourceErrors > errs })
		before = relay.Stats().Delivered
	}
	awaitTrue(t, func() bool { return countBehind(t, client) == 0 })
	require.Greater(t, relay.Stats().Delivered, int64(n+takeovers), "some were delivered again")
	for i := range streams {
		copied, err := client.ReadStream(t.Context(), messagedb.StreamName(fmt.Sprintf("copy-account-%d", i)), messagedb.StreamOptions{})
		require.NoError(t, err)
		original, err := client.ReadStream(t.Context(), messagedb.StreamName(fmt.Sprintf("account-%d", i)), messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Len(t, copied, len(original))
		for j, m := range copied {
			metadata, err := messagedb.DecodeMetadata[category.Metadata](m)
			require.NoError(t, err)
			require.Equal(t, "here:"+original[j].ID, metadata.ID)
		}
	}
}

func TestARewoundStoreEndsOrRestartsTheRelay(t *testing.T) {
	t.Parallel()
	for _, policy := range []messagedb.RewindPolicy{messagedb.RewindStop, messagedb.RewindRestart} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			d := cdctest.New(t)
			client := newClient(t, d.Pool)
			writeMessages(t, client, 5, 1)
			sink := &recorder{}
			source, err := category.NewSource(category.SourceConfig{Client: client, Consumer: func() messagedb.ConsumerConfig {
				c := consumer
				c.Rewind = policy
				return c
			}()})
			require.NoError(t, err)
			relay, err := sinks.NewRelay(sinks.Config{Source: source, Sink: sink, Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- relay.Run(ctx) }()
			defer cancel()
			awaitTrue(t, func() bool { return len(sink.allAccepted()) == 5 })
			d.Exec("TRUNCATE message_store.messages RESTART IDENTITY")
			if policy == messagedb.RewindRestart {
				awaitTrue(t, func() bool { return relay.Stats().SourceErrors > 0 })
				writeMessages(t, client, 2, 1)
				awaitTrue(t, func() bool { return len(sink.allAccepted()) == 7 })
				cancel()
				require.NoError(t, <-ended)
				return
			}
			require.ErrorAs(t, <-ended, new(*messagedb.RewoundError))
		})
	}
}

func TestInvalidSourceConfigsAreRefused(t *testing.T) {
	t.Parallel()
	client := newClient(t, cdctest.New(t).Pool)
	for field, config := range map[string]category.SourceConfig{"Client": {}, "Consumer.Category": {Client: client}} {
		_, err := category.NewSource(config)
		invalid := new(sinks.InvalidError)
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
	source, err := category.NewSource(category.SourceConfig{Client: client, Consumer: messagedb.ConsumerConfig{Category: "a-1"}})
	require.NoError(t, err)
	relay, err := sinks.NewRelay(sinks.Config{Source: source, Sink: &recorder{}, Logger: quiet})
	require.NoError(t, err)
	require.ErrorAs(t, relay.Run(t.Context()), new(*messagedb.InvalidError))
}
