package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

func TestAFailingMessageHoldsBackItsOwnKeyOnly(t *testing.T) {
	t.Parallel()
	source := newListSource(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "b"}, sinks.Message{Key: "b"}, sinks.Message{})
	var healed bool
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.ID == "1" && !healed {
			return errors.New("not now")
		}
		return nil
	}}
	relay, stop := startRelay(t, quickConfig(source, sink))
	awaitTrue(t, func() bool { return len(sink.acceptedIDs()) == 3 && relay.Stats().Failed > 2 })
	require.ElementsMatch(t, []string{"3", "4", "5"}, sink.acceptedIDs())
	require.True(t, source.isConfirmed(0)(), "nothing is confirmed behind a message that is not delivered")
	require.Equal(t, 5, relay.Stats().Unconfirmed)
	require.ErrorContains(t, relay.Stats().LastError, "not now")

	sink.mu.Lock()
	healed = true
	sink.mu.Unlock()
	awaitTrue(t, source.isConfirmed(5))
	require.Equal(t, []string{"1", "2"}, sink.acceptedIDs()[3:])
	require.NoError(t, stop())
}

func TestUnconfirmedMessagesComeAgain(t *testing.T) {
	t.Parallel()
	source := newListSource(sinks.Message{Key: "a"}, sinks.Message{Key: "b"}, sinks.Message{Key: "c"})
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "b" {
			return errors.New("not now")
		}
		return nil
	}}
	_, stop := startRelay(t, quickConfig(source, sink))
	awaitTrue(t, func() bool { return len(sink.acceptedIDs()) == 2 && source.isConfirmed(1)() })
	require.NoError(t, stop())

	source.rewind()
	sink.fail = nil
	_, stop = startRelay(t, quickConfig(source, sink))
	awaitTrue(t, source.isConfirmed(3))
	require.NoError(t, stop())
	require.ElementsMatch(t, []string{"1", "3", "2", "3"}, sink.acceptedIDs())
}

func TestABarrierSeparatesTheMessagesAroundIt(t *testing.T) {
	t.Parallel()
	source := newListSource(sinks.Message{Key: "a"}, sinks.Message{Key: "b"}, sinks.Message{Barrier: true}, sinks.Message{Barrier: true}, sinks.Message{Key: "a"}, sinks.Message{Key: "c"})
	failures := 5
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.ID == "2" || m.ID == "3" {
			if failures--; failures > 0 {
				return errors.New("not now")
			}
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.Parallelism = 4
	startRelay(t, config)
	awaitTrue(t, source.isConfirmed(6))
	ids := sink.acceptedIDs()
	require.ElementsMatch(t, []string{"1", "2"}, ids[:2])
	require.Equal(t, []string{"3", "4"}, ids[2:4])
	require.ElementsMatch(t, []string{"5", "6"}, ids[4:])
}

func TestErrorPolicies(t *testing.T) {
	t.Parallel()
	refuse := func(m sinks.Message) error {
		if m.ID == "1" {
			return sinks.Permanent(errors.New("too ugly"))
		}
		return nil
	}
	t.Run("block", func(t *testing.T) {
		t.Parallel()
		source, sink := newListSource(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "b"}), &recorder{fail: refuse}
		relay, _ := startRelay(t, quickConfig(source, sink))
		awaitTrue(t, func() bool { return relay.Stats().Failed > 3 && len(sink.acceptedIDs()) == 1 })
		require.Equal(t, []string{"3"}, sink.acceptedIDs())
	})
	t.Run("set aside", func(t *testing.T) {
		t.Parallel()
		source, sink := newListSource(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "b"}), &recorder{fail: refuse}
		config := quickConfig(source, sink)
		config.Undeliverable = sinks.SetAside
		var aside []string
		tries := 0
		config.SetAside = func(_ context.Context, m sinks.Message, reason error) error {
			if tries++; tries < 3 {
				return errors.New("the shelf is full")
			}
			aside = append(aside, m.ID+" "+reason.Error())
			return nil
		}
		relay, stop := startRelay(t, config)
		awaitTrue(t, source.isConfirmed(3))
		require.NoError(t, stop())
		require.Equal(t, []string{"1 too ugly"}, aside)
		require.ElementsMatch(t, []string{"2", "3"}, sink.acceptedIDs())
		require.EqualValues(t, 1, relay.Stats().SetAside)
	})
	t.Run("stop", func(t *testing.T) {
		t.Parallel()
		source, sink := newListSource(sinks.Message{Key: "b"}, sinks.Message{Key: "a"}), &recorder{fail: func(m sinks.Message) error {
			if m.ID == "2" {
				return errors.New("not now")
			}
			return nil
		}}
		config := quickConfig(source, sink)
		config.Undeliverable, config.MaxAttempts = sinks.Stop, 3
		relay, err := sinks.NewRelay(config)
		require.NoError(t, err)
		err = relay.Run(t.Context())
		var undelivered *sinks.DeliveryError
		require.ErrorAs(t, err, &undelivered)
		require.Equal(t, "2", undelivered.Message.ID)
		require.Equal(t, 3, undelivered.Attempts)
		require.True(t, source.isConfirmed(1)(), "what was delivered is confirmed")
	})
}

func TestUserFunctionsMayFailAndPanic(t *testing.T) {
	t.Parallel()
	source := newListSource(sinks.Message{Key: "filtered"}, sinks.Message{Key: "panics"}, sinks.Message{Key: "fails"}, sinks.Message{Key: "x"}, sinks.Message{Key: "y"})
	calls := 0
	sink := &recorder{fail: func(m sinks.Message) error {
		if calls++; calls == 1 {
			panic("at first")
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.Filter = func(m sinks.Message) bool { return m.Key != "filtered" }
	config.Transform = func(_ context.Context, m sinks.Message) (sinks.Message, error) {
		switch m.Key {
		case "panics":
			panic("at the transform")
		case "fails":
			return m, errors.New("no")
		}
		return sinks.Message{ID: m.ID + "!", Subject: "changed"}, nil
	}
	config.Undeliverable = sinks.SetAside
	var mu sync.Mutex
	var aside []string
	config.SetAside = func(_ context.Context, m sinks.Message, _ error) error {
		mu.Lock()
		defer mu.Unlock()
		aside = append(aside, m.Key)
		return nil
	}
	relay, stop := startRelay(t, config)
	awaitTrue(t, source.isConfirmed(5))
	require.NoError(t, stop())
	require.ElementsMatch(t, []string{"4!", "5!"}, sink.acceptedIDs())
	require.ElementsMatch(t, []string{"panics", "fails"}, aside)
	require.EqualValues(t, 1, relay.Stats().Filtered)
	require.EqualValues(t, 2, relay.Stats().Delivered)
}

func TestWindowLimitsUnconfirmedMessages(t *testing.T) {
	t.Parallel()
	messages := make([]sinks.Message, 50)
	for i := range messages {
		messages[i].Key = fmt.Sprint(i)
	}
	source := newListSource(messages...)
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "0" {
			return errors.New("not now")
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.BatchSize, config.Window = 3, 10
	relay, _ := startRelay(t, config)
	awaitTrue(t, func() bool { return len(sink.acceptedIDs()) == 9 && relay.Stats().Full && relay.Stats().Waiting == 1 })
	source.mu.Lock()
	require.Equal(t, 10, source.next)
	source.mu.Unlock()
}

func TestWindowBytesLimitsUnconfirmedBytes(t *testing.T) {
	t.Parallel()
	messages := make([]sinks.Message, 50)
	for i := range messages {
		messages[i] = sinks.Message{Key: fmt.Sprint(i), Body: make([]byte, 100)}
	}
	source := newListSource(messages...)
	var healed atomic.Bool
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "0" && !healed.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.BatchSize, config.WindowBytes = 2, 1000
	relay, _ := startRelay(t, config)
	awaitTrue(t, func() bool { return len(sink.acceptedIDs()) == 9 && relay.Stats().Full && relay.Stats().Waiting == 1 })
	source.mu.Lock()
	require.Equal(t, 10, source.next)
	source.mu.Unlock()
	healed.Store(true)
	awaitTrue(t, source.isConfirmed(50))
}

// A message that the sink had no time for has used no attempt. A relay runs only once, because its source has advanced.
func TestErrNotTriedIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	left := 10
	source, sink := newListSource(sinks.Message{}), &recorder{fail: func(sinks.Message) error {
		if left--; left > 0 {
			return sinks.ErrNotTried
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.MaxAttempts, config.Undeliverable = 1, sinks.Stop
	relay, stop := startRelay(t, config)
	awaitTrue(t, source.isConfirmed(1))
	require.NoError(t, stop())
	require.Zero(t, relay.Stats().Failed)
	require.ErrorIs(t, relay.Run(t.Context()), sinks.ErrStarted)
}

func TestAFailingSourceIsRetried(t *testing.T) {
	t.Parallel()
	source, sink := newListSource(sinks.Message{}, sinks.Message{}), &recorder{}
	source.fails = 5
	relay, stop := startRelay(t, quickConfig(source, sink))
	awaitTrue(t, source.isConfirmed(2))
	require.NoError(t, stop())
	require.GreaterOrEqual(t, relay.Stats().SourceErrors, int64(5))
	require.Len(t, sink.acceptedIDs(), 2)
}

type goneSource struct{}

func (goneSource) Next(context.Context, int) ([]sinks.Message, error) {
	return nil, sinks.Permanent(errGone)
}
func (goneSource) Confirm(context.Context, any) error { return nil }

var errGone = errors.New("gone")

func TestAPermanentErrorOfTheSourceEndsTheRelay(t *testing.T) {
	t.Parallel()
	relay, err := sinks.NewRelay(quickConfig(goneSource{}, &recorder{}))
	require.NoError(t, err)
	require.ErrorIs(t, relay.Run(t.Context()), errGone)
}

// However the sink fails, and whenever the relay is stopped, every message is delivered, and the messages of each key end up in order.
func TestOrderIsKeptForEachKeyDespiteFailures(t *testing.T) {
	t.Parallel()
	messages := make([]sinks.Message, 2000)
	for i := range messages {
		messages[i] = sinks.Message{ID: fmt.Sprint(i), Key: fmt.Sprint(rand.IntN(40)), Barrier: rand.IntN(200) == 0}
	}
	source, sink := newListSource(messages...), &recorder{fail: func(sinks.Message) error {
		if rand.IntN(5) == 0 {
			return errors.New("not now")
		}
		return nil
	}}
	config := quickConfig(source, sink)
	config.BatchSize, config.Window, config.Parallelism = 20, 200, 4
	for range 10 {
		before := len(sink.acceptedIDs())
		_, stop := startRelay(t, config)
		awaitTrue(t, func() bool { return len(sink.acceptedIDs()) > before+100 || source.isConfirmed(len(messages))() })
		require.NoError(t, stop())
		source.rewind()
	}
	startRelay(t, config)
	awaitTrue(t, source.isConfirmed(len(messages)))

	// Messages may repeat after a restart; apart from that, messages of a key, and barriers for all keys, are in order.
	first := map[string]int{}
	for i, m := range sink.accepted {
		if _, seen := first[m.ID]; !seen {
			first[m.ID] = i
		}
	}
	require.Len(t, first, len(messages))
	last := map[string]int{}
	barrier, highest := -1, -1
	for i, m := range messages {
		at := first[m.ID]
		if m.Barrier {
			require.Greater(t, at, highest, "message %d is a barrier", i)
			barrier = at
		} else {
			if previous, found := last[m.Key]; found {
				require.Greater(t, at, previous, "message %d", i)
			}
			require.Greater(t, at, barrier, "message %d", i)
			last[m.Key] = at
		}
		highest = max(highest, at)
	}
}

func TestInvalidConfigsNameTheField(t *testing.T) {
	t.Parallel()
	valid := sinks.Config{Source: newListSource(), Sink: &recorder{}}
	for field, change := range map[string]func(*sinks.Config){
		"Source":        func(c *sinks.Config) { c.Source = nil },
		"Sink":          func(c *sinks.Config) { c.Sink = nil },
		"BatchSize":     func(c *sinks.Config) { c.BatchSize = -1 },
		"Window":        func(c *sinks.Config) { c.Window = 3 },
		"LongestRetry":  func(c *sinks.Config) { c.ShortestRetry, c.LongestRetry = time.Minute, time.Second },
		"MaxAttempts":   func(c *sinks.Config) { c.MaxAttempts = -1 },
		"Undeliverable": func(c *sinks.Config) { c.Undeliverable = "drop" },
		"SetAside":      func(c *sinks.Config) { c.Undeliverable = sinks.SetAside },
	} {
		config := valid
		change(&config)
		_, err := sinks.NewRelay(config)
		var invalid *sinks.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}
