package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// journal is a handler that records messages.
type journal struct {
	mu  sync.Mutex
	all []*messagedb.Message
}

func (j *journal) handle(_ context.Context, m *messagedb.Message) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = append(j.all, m)
	return nil
}

func (j *journal) handledMessages() []*messagedb.Message {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]*messagedb.Message(nil), j.all...)
}

func newTestConsumer(t *testing.T, s *store, config messagedb.ConsumerConfig) *messagedb.Consumer {
	t.Helper()
	if config.Polling == nil {
		config.Polling = messagedb.IdlePolling(5 * time.Millisecond)
	}
	c, err := s.client.NewConsumer(config)
	require.NoError(t, err)
	return c
}

// runConsumer runs a consumer; the returned function waits for its end and returns the error.
func runConsumer(t *testing.T, c *messagedb.Consumer) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return ended
}

func waitHandled(t *testing.T, c *messagedb.Consumer, n int64) {
	t.Helper()
	require.Eventually(t, func() bool { s := c.Stats(); return s.Handled+s.Ignored+s.Skipped >= n }, soon, time.Millisecond, "%d messages", n)
}

func TestAConsumerResumesWhereItStopped(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "account:command", 3, 50)
		j := &journal{}
		config := messagedb.ConsumerConfig{Category: "account:command", Identifier: "worker", Handler: j.handle, BatchSize: 40}
		c := newTestConsumer(t, s, config)
		require.Equal(t, messagedb.StreamName("account:command+position-worker"), c.PositionStream())
		ended := runConsumer(t, c)
		waitHandled(t, c, 150)
		require.NoError(t, c.Stop(t.Context()))
		require.NoError(t, take(t, ended))
		require.Equal(t, all, j.handledMessages())
		positions, err := s.client.ReadStream(t.Context(), c.PositionStream(), messagedb.StreamOptions{})
		require.NoError(t, err)
		require.Len(t, positions, 2, "after 100 messages, and at the stop")
		for i, want := range []int64{all[99].GlobalPosition, all[149].GlobalPosition} {
			require.Equal(t, "Recorded", positions[i].Type)
			require.JSONEq(t, fmt.Sprintf(`{"position": %d}`, want), string(positions[i].Data))
		}
		lag, err := c.Lag(t.Context())
		require.NoError(t, err)
		require.Zero(t, lag)

		// A run begins inclusively, as the same or another consumer.
		more := fillCategory(t, s, "account:command", 4, 50)[150:]
		lag, err = newTestConsumer(t, s, config).Lag(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, len(more), lag.Messages)
		require.Equal(t, more[len(more)-1].GlobalPosition, lag.Last)
		require.Positive(t, lag.Age)
		ended = runConsumer(t, c)
		waitHandled(t, c, int64(151+len(more)))
		require.NoError(t, c.Stop(t.Context()))
		require.NoError(t, take(t, ended))
		require.Equal(t, append(append([]*messagedb.Message{}, all...), append([]*messagedb.Message{all[149]}, more...)...), j.handledMessages())
		require.NoError(t, c.Stop(t.Context()), "stopping what does not run does nothing")
	})
}

// The message at the saved position is repeated too, so it is one more than the interval if the crash comes before the save.
func TestAfterACrashNoMoreThanTheIntervalIsRepeated(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	all := fillCategory(t, s, "a", 2, 100)
	const interval = 7
	var highest int64 // global position that was handled
	seen := map[string]bool{}
	crashes := 0
	for alive := true; alive; {
		// The consumer dies in the handler of its fatal message, before it saves, or at any moment soon after that.
		dies, fatal, sudden := len(seen) < 150, 21+crashes/2, crashes%2 == 0
		var c *messagedb.Consumer
		life := &journal{}
		c = newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", PositionInterval: interval, Handler: func(ctx context.Context, m *messagedb.Message) error {
			if dies && len(life.handledMessages()) == fatal+2*interval {
				<-ctx.Done()
				return ctx.Err()
			}
			_ = life.handle(ctx, m)
			switch {
			case !dies || len(life.handledMessages()) != fatal:
			case sudden:
				c.Kill()
			default:
				go c.Kill()
			}
			return nil
		}})
		require.Equal(t, messagedb.StreamName("a:position"), c.PositionStream())
		ended := runConsumer(t, c)
		if !dies {
			require.Eventually(t, func() bool { return c.Stats().Position == all[199].GlobalPosition }, soon, time.Millisecond)
			require.NoError(t, c.Stop(t.Context()))
			alive = false
		}
		require.NoError(t, take(t, ended))
		repeated := 0
		for _, m := range life.handledMessages() {
			if seen[m.ID] = true; m.GlobalPosition <= highest {
				repeated++
			}
		}
		require.LessOrEqual(t, repeated, interval+1, "after crash %d", crashes)
		highest = max(highest, life.handledMessages()[len(life.handledMessages())-1].GlobalPosition)
		if dies {
			crashes++
		}
	}
	require.Len(t, seen, 200)
	require.Greater(t, crashes, 2)
}

func TestMessagesAreRoutedByType(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	_, err := s.client.Write(t.Context(), "a-1", []messagedb.ProposedMessage{
		{Type: "Opened", Data: opened{"ann"}}, {Type: "Unknown", Data: 1}, {Type: "Count", Data: 7}, {Type: "Opened", Data: messagedb.NoData},
	}, messagedb.AnyVersion)
	require.NoError(t, err)
	c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a"})
	got := make(chan any, 10)
	messagedb.Handle(c, "Opened", func(_ context.Context, data opened, m *messagedb.Message) error {
		require.Equal(t, "Opened", m.Type)
		got <- data
		return nil
	})
	messagedb.Handle(c, "Count", func(_ context.Context, data int, _ *messagedb.Message) error { got <- data; return nil })
	ended := runConsumer(t, c)
	waitHandled(t, c, 4)
	require.NoError(t, c.Stop(t.Context()))
	require.NoError(t, take(t, ended))
	require.Equal(t, []any{opened{"ann"}, 7, opened{}}, []any{<-got, <-got, <-got})
	stats := c.Stats()
	require.Equal(t, []int64{3, 1, 0, 0, 4, 4}, []int64{stats.Handled, stats.Ignored, stats.Skipped, stats.Retried, stats.Position, stats.Saved})
}

func TestErrorPolicy(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		policy   messagedb.ErrorPolicy
		fails    int // how often the message fails
		attempts int
		stops    bool
		skips    bool
	}{
		"stop":           {messagedb.ErrorPolicy{}, 9, 1, true, false},
		"retry, succeed": {messagedb.ErrorPolicy{Retries: 3, Delay: time.Millisecond}, 2, 3, false, false},
		"retry, stop":    {messagedb.ErrorPolicy{Retries: 3, Delay: time.Millisecond}, 9, 4, true, false},
		"skip":           {messagedb.ErrorPolicy{Skip: true}, 9, 1, false, true},
		"retry, skip":    {messagedb.ErrorPolicy{Retries: 2, Delay: time.Millisecond, Skip: true}, 9, 3, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			all := fillCategory(t, s, "a", 1, 10)
			attempts := 0
			c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", Identifier: "x", ErrorPolicy: test.policy, Handler: func(_ context.Context, m *messagedb.Message) error {
				if m.Position != 4 {
					return nil
				}
				if attempts++; attempts <= test.fails {
					return broken
				}
				return nil
			}})
			ended := runConsumer(t, c)
			if test.stops {
				err := take(t, ended)
				failed := new(messagedb.HandlerError)
				require.ErrorAs(t, err, &failed)
				require.ErrorIs(t, err, broken)
				require.Equal(t, test.attempts, failed.Attempts)
				require.Equal(t, all[4], failed.Message)
				require.Equal(t, all[3].GlobalPosition, c.Stats().Saved, "what came before is saved")
			} else {
				waitHandled(t, c, 10)
				require.NoError(t, c.Stop(t.Context()))
				require.NoError(t, take(t, ended))
			}
			require.Equal(t, test.attempts, attempts)
			records, err := s.client.ReadStream(t.Context(), "a:skipped-x", messagedb.StreamOptions{})
			require.NoError(t, err)
			require.Equal(t, test.skips, len(records) == 1, "%v", records)
			if !test.skips {
				return
			}
			require.Equal(t, messagedb.StreamName("a:skipped-x"), c.SkippedStream())
			record, err := messagedb.Decode[messagedb.Skipped](records[0])
			require.NoError(t, err)
			require.Equal(t, messagedb.Skipped{ID: all[4].ID, Stream: "a-0", Type: "T0", Position: 4, GlobalPosition: all[4].GlobalPosition, Attempts: test.attempts, Error: "broken"}, record)
			require.Equal(t, messagedb.SkippedType, records[0].Type)

			// Skipped again after a crash, it is recorded once.
			_, err = s.pool.Exec(t.Context(), "DELETE FROM message_store.messages WHERE stream_name = 'a:position-x'")
			require.NoError(t, err)
			again := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", Identifier: "x", ErrorPolicy: messagedb.ErrorPolicy{Skip: true}, Handler: func(_ context.Context, m *messagedb.Message) error {
				return fmt.Errorf("broken otherwise: %d", m.Position)
			}})
			ended = runConsumer(t, again)
			waitHandled(t, again, 10)
			require.NoError(t, again.Stop(t.Context()))
			require.NoError(t, take(t, ended))
			records, err = s.client.ReadStream(t.Context(), "a:skipped-x", messagedb.StreamOptions{})
			require.NoError(t, err)
			require.Len(t, records, 10)
		})
	}
}

func TestDataThatDoesNotFitIsNotRetried(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	_, err := s.client.WriteMessage(t.Context(), "a-1", messagedb.ProposedMessage{Type: "Opened", Data: "text"}, messagedb.AnyVersion)
	require.NoError(t, err)
	c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", ErrorPolicy: messagedb.ErrorPolicy{Retries: 1000, Delay: time.Hour}})
	messagedb.Handle(c, "Opened", func(context.Context, opened, *messagedb.Message) error { return nil })
	err = take(t, runConsumer(t, c))
	require.ErrorAs(t, err, new(*messagedb.DecodeError))
	require.ErrorAs(t, err, new(*messagedb.HandlerError))
}

func TestStopWaitsForTheHandlerAndThenCancelsIt(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	all := fillCategory(t, s, "a", 1, 3)
	entered, leave := make(chan context.Context, 3), make(chan struct{})
	config := messagedb.ConsumerConfig{Category: "a", Handler: func(ctx context.Context, m *messagedb.Message) error {
		entered <- ctx
		select {
		case <-leave:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	c := newTestConsumer(t, s, config)
	ended := runConsumer(t, c)
	handling := take(t, entered)
	patience, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Stop(patience), context.DeadlineExceeded)
	require.Error(t, handling.Err(), "out of patience, Stop cancels the handler")
	require.NoError(t, take(t, ended))
	require.Zero(t, c.Stats(), "what was cancelled does not count")

	ended = runConsumer(t, c)
	take(t, entered)
	var left atomic.Bool
	go func() {
		for !c.Stopping() {
			time.Sleep(time.Millisecond)
		}
		left.Store(true)
		close(leave)
	}()
	require.NoError(t, c.Stop(t.Context()))
	require.True(t, left.Load(), "Stop returned before the handler did")
	require.NoError(t, take(t, ended))
	require.Equal(t, all[0].GlobalPosition, c.Stats().Saved)
	require.Empty(t, entered)
}

func TestConsumersThatCannotBe(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ok := messagedb.ConsumerConfig{Category: "a", Handler: (&journal{}).handle}
	for want, change := range map[messagedb.Field]func(*messagedb.ConsumerConfig){
		messagedb.FieldCategory:         func(c *messagedb.ConsumerConfig) { c.Category = "a-1" },
		messagedb.FieldIdentifier:       func(c *messagedb.ConsumerConfig) { c.Group = &messagedb.Group{Size: 2} },
		messagedb.FieldGroupSize:        func(c *messagedb.ConsumerConfig) { c.Group = &messagedb.Group{} },
		messagedb.FieldPositionInterval: func(c *messagedb.ConsumerConfig) { c.PositionInterval = -1 },
		messagedb.FieldPosition:         func(c *messagedb.ConsumerConfig) { c.From = -1 },
		messagedb.FieldBatchSize:        func(c *messagedb.ConsumerConfig) { c.BatchSize = messagedb.Unlimited },
		messagedb.FieldErrorPolicy:      func(c *messagedb.ConsumerConfig) { c.ErrorPolicy.Retries = -1 },
		messagedb.FieldStream:           func(c *messagedb.ConsumerConfig) { c.PositionStream = "a-position" },
		messagedb.FieldPreviousSize:     func(c *messagedb.ConsumerConfig) { c.PreviousSize = 3 },
	} {
		config := ok
		change(&config)
		_, err := s.client.NewConsumer(config)
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, err, &bad, want)
		require.Equal(t, want, bad.Field, "%v", err)
	}
	for name, c := range map[string]func() *messagedb.Consumer{
		"no handler": func() *messagedb.Consumer { return newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a"}) },
		"twice": func() *messagedb.Consumer {
			c := newTestConsumer(t, s, ok)
			for range 2 {
				messagedb.Handle(c, "T", func(context.Context, int, *messagedb.Message) error { return nil })
			}
			return c
		},
		"nil": func() *messagedb.Consumer {
			c := newTestConsumer(t, s, ok)
			messagedb.Handle[int](c, "T", nil)
			return c
		},
		"no type": func() *messagedb.Consumer {
			c := newTestConsumer(t, s, ok)
			messagedb.Handle(c, "", func(context.Context, int, *messagedb.Message) error { return nil })
			return c
		},
	} {
		require.ErrorAs(t, c().Run(t.Context()), new(*messagedb.InvalidError), name)
	}
	c := newTestConsumer(t, s, ok)
	fillCategory(t, s, "a", 1, 1)
	runConsumer(t, c)
	waitHandled(t, c, 1)
	require.Error(t, c.Run(canceledContext()), "it runs already")
}

func canceledContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
