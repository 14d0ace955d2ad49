package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// list is a source of messages that are known from the start. It goes on after the last confirmed one at each start.
type list struct {
	mu        sync.Mutex
	messages  []sinks.Message
	next      int
	confirmed int // how many
	fails     int // how many calls of Next and Confirm fail
}

func newList(messages ...sinks.Message) *list {
	for i := range messages {
		messages[i].Position = i + 1
		if messages[i].ID == "" {
			messages[i].ID = fmt.Sprint(i + 1)
		}
	}
	return &list{messages: messages}
}

func (l *list) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return nil, errors.New("not now")
	}
	if l.next == len(l.messages) {
		l.mu.Unlock()
		<-ctx.Done()
		l.mu.Lock()
		return nil, ctx.Err()
	}
	page := l.messages[l.next:min(l.next+limit, len(l.messages))]
	l.next += len(page)
	return slices.Clone(page), nil
}

func (l *list) Confirm(_ context.Context, position any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return errors.New("not now")
	}
	l.confirmed = position.(int)
	return nil
}

func (l *list) restart() { l.next = l.confirmed }

func (l *list) isConfirmed(n int) func() bool {
	return func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.confirmed == n }
}

// recorder is a sink that keeps what it accepted, and fails as it is told.
type recorder struct {
	mu       sync.Mutex
	accepted []sinks.Message
	calls    int
	fail     func(m sinks.Message) error
}

func (r *recorder) Deliver(_ context.Context, messages []sinks.Message) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	errs := make([]error, len(messages))
	for i, m := range messages {
		if r.fail != nil {
			errs[i] = r.fail(m)
		}
		if errs[i] == nil {
			r.accepted = append(r.accepted, m)
		}
	}
	return errs
}

func (r *recorder) ids() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.accepted {
		ids = append(ids, m.ID)
	}
	return ids
}

func quick(source sinks.Source, sink sinks.Sink) sinks.Config {
	return sinks.Config{
		Source: source, Sink: sink, ShortestRetry: time.Millisecond, LongestRetry: 5 * time.Millisecond, ConfirmInterval: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// start runs a relay until stop is called or the test ends.
func start(t *testing.T, config sinks.Config) (relay *sinks.Relay, stop func() error) {
	t.Helper()
	relay, err := sinks.NewRelay(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return relay, stop
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 3*time.Minute, time.Millisecond)
}

func TestAFailingMessageHoldsBackItsOwnKeyOnly(t *testing.T) {
	t.Parallel()
	source := newList(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "b"}, sinks.Message{Key: "b"}, sinks.Message{})
	var healed bool
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.ID == "1" && !healed {
			return errors.New("not now")
		}
		return nil
	}}
	relay, stop := start(t, quick(source, sink))
	until(t, func() bool { return len(sink.ids()) == 3 && relay.Stats().Failed > 2 })
	require.ElementsMatch(t, []string{"3", "4", "5"}, sink.ids())
	require.True(t, source.isConfirmed(0)(), "nothing is confirmed behind a message that is not delivered")
	require.Equal(t, 5, relay.Stats().Unconfirmed)
	require.ErrorContains(t, relay.Stats().LastError, "not now")

	sink.mu.Lock()
	healed = true
	sink.mu.Unlock()
	until(t, source.isConfirmed(5))
	require.Equal(t, []string{"1", "2"}, sink.ids()[3:])
	require.NoError(t, stop())
}

func TestWhatIsNotConfirmedComesAgain(t *testing.T) {
	t.Parallel()
	source := newList(sinks.Message{Key: "a"}, sinks.Message{Key: "b"}, sinks.Message{Key: "c"})
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "b" {
			return errors.New("not now")
		}
		return nil
	}}
	_, stop := start(t, quick(source, sink))
	until(t, func() bool { return len(sink.ids()) == 2 && source.isConfirmed(1)() })
	require.NoError(t, stop())

	source.restart()
	sink.fail = nil
	_, stop = start(t, quick(source, sink))
	until(t, source.isConfirmed(3))
	require.NoError(t, stop())
	require.ElementsMatch(t, []string{"1", "3", "2", "3"}, sink.ids())
}

func TestABarrierIsDeliveredBetweenWhatIsBeforeAndBehindIt(t *testing.T) {
	t.Parallel()
	source := newList(sinks.Message{Key: "a"}, sinks.Message{Key: "b"}, sinks.Message{Barrier: true}, sinks.Message{Barrier: true}, sinks.Message{Key: "a"}, sinks.Message{Key: "c"})
	failures := 5
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.ID == "2" || m.ID == "3" {
			if failures--; failures > 0 {
				return errors.New("not now")
			}
		}
		return nil
	}}
	config := quick(source, sink)
	config.Parallelism = 4
	start(t, config)
	until(t, source.isConfirmed(6))
	ids := sink.ids()
	require.ElementsMatch(t, []string{"1", "2"}, ids[:2])
	require.Equal(t, []string{"3", "4"}, ids[2:4])
	require.ElementsMatch(t, []string{"5", "6"}, ids[4:])
}

func TestPoliciesForWhatCannotBeDelivered(t *testing.T) {
	t.Parallel()
	refuse := func(m sinks.Message) error {
		if m.ID == "1" {
			return sinks.Permanent(errors.New("too ugly"))
		}
		return nil
	}
	t.Run("block", func(t *testing.T) {
		t.Parallel()
		source, sink := newList(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "b"}), &recorder{fail: refuse}
		relay, _ := start(t, quick(source, sink))
		until(t, func() bool { return relay.Stats().Failed > 3 && len(sink.ids()) == 1 })
		require.Equal(t, []string{"3"}, sink.ids())
	})
	t.Run("set aside", func(t *testing.T) {
		t.Parallel()
		source, sink := newList(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "b"}), &recorder{fail: refuse}
		config := quick(source, sink)
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
		relay, stop := start(t, config)
		until(t, source.isConfirmed(3))
		require.NoError(t, stop())
		require.Equal(t, []string{"1 too ugly"}, aside)
		require.ElementsMatch(t, []string{"2", "3"}, sink.ids())
		require.EqualValues(t, 1, relay.Stats().SetAside)
	})
	t.Run("stop", func(t *testing.T) {
		t.Parallel()
		source, sink := newList(sinks.Message{Key: "b"}, sinks.Message{Key: "a"}), &recorder{fail: func(m sinks.Message) error {
			if m.ID == "2" {
				return errors.New("not now")
			}
			return nil
		}}
		config := quick(source, sink)
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

func TestCodeOfUsersMayFailAndPanic(t *testing.T) {
	t.Parallel()
	source := newList(sinks.Message{Key: "filtered"}, sinks.Message{Key: "panics"}, sinks.Message{Key: "fails"}, sinks.Message{Key: "x"}, sinks.Message{Key: "y"})
	calls := 0
	sink := &recorder{fail: func(m sinks.Message) error {
		if calls++; calls == 1 {
			panic("at first")
		}
		return nil
	}}
	config := quick(source, sink)
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
	relay, stop := start(t, config)
	until(t, source.isConfirmed(5))
	require.NoError(t, stop())
	require.ElementsMatch(t, []string{"4!", "5!"}, sink.ids())
	require.ElementsMatch(t, []string{"panics", "fails"}, aside)
	require.EqualValues(t, 1, relay.Stats().Filtered)
	require.EqualValues(t, 2, relay.Stats().Delivered)
}

func TestAWindowBoundsWhatIsRead(t *testing.T) {
	t.Parallel()
	messages := make([]sinks.Message, 50)
	for i := range messages {
		messages[i].Key = fmt.Sprint(i)
	}
	source := newList(messages...)
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "0" {
			return errors.New("not now")
		}
		return nil
	}}
	config := quick(source, sink)
	config.BatchSize, config.Window = 3, 10
	relay, _ := start(t, config)
	until(t, func() bool { return len(sink.ids()) == 9 && relay.Stats().Full && relay.Stats().Waiting == 1 })
	source.mu.Lock()
	require.Equal(t, 10, source.next)
	source.mu.Unlock()
}

func TestAWindowBoundsBytesToo(t *testing.T) {
	t.Parallel()
	messages := make([]sinks.Message, 50)
	for i := range messages {
		messages[i] = sinks.Message{Key: fmt.Sprint(i), Body: make([]byte, 100)}
	}
	source := newList(messages...)
	var healed atomic.Bool
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "0" && !healed.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	config := quick(source, sink)
	config.BatchSize, config.WindowBytes = 2, 1000
	relay, _ := start(t, config)
	until(t, func() bool { return len(sink.ids()) == 9 && relay.Stats().Full && relay.Stats().Waiting == 1 })
	source.mu.Lock()
	require.Equal(t, 10, source.next)
	source.mu.Unlock()
	healed.Store(true)
	until(t, source.isConfirmed(50))
}

// What the sink had no time for is no attempt; and a relay runs once, because its source has gone on.
func TestWhatIsNotTriedIsNoAttempt(t *testing.T) {
	t.Parallel()
	left := 10
	source, sink := newList(sinks.Message{}), &recorder{fail: func(sinks.Message) error {
		if left--; left > 0 {
			return sinks.ErrNotTried
		}
		return nil
	}}
	config := quick(source, sink)
	config.MaxAttempts, config.Undeliverable = 1, sinks.Stop
	relay, stop := start(t, config)
	until(t, source.isConfirmed(1))
	require.NoError(t, stop())
	require.Zero(t, relay.Stats().Failed)
	require.ErrorIs(t, relay.Run(t.Context()), sinks.ErrStarted)
}

func TestASourceThatFailsIsAskedAgain(t *testing.T) {
	t.Parallel()
	source, sink := newList(sinks.Message{}, sinks.Message{}), &recorder{}
	source.fails = 5
	relay, stop := start(t, quick(source, sink))
	until(t, source.isConfirmed(2))
	require.NoError(t, stop())
	require.GreaterOrEqual(t, relay.Stats().SourceErrors, int64(5))
	require.Len(t, sink.ids(), 2)
}

type gone struct{}

func (gone) Next(context.Context, int) ([]sinks.Message, error) { return nil, sinks.Permanent(errGone) }
func (gone) Confirm(context.Context, any) error                 { return nil }

var errGone = errors.New("gone")

func TestAPermanentErrorOfTheSourceEndsTheRelay(t *testing.T) {
	t.Parallel()
	relay, err := sinks.NewRelay(quick(gone{}, &recorder{}))
	require.NoError(t, err)
	require.ErrorIs(t, relay.Run(t.Context()), errGone)
}

// claimed is a list whose place can be lost to another process, which delivers some more.
type claimed struct {
	*list
	lost   chan struct{}
	closed int
}

func (c *claimed) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	c.mu.Lock()
	select {
	case <-c.lost:
		c.lost = make(chan struct{})
		c.restart()
		c.mu.Unlock()
		return nil, sinks.Resume(errors.New("another process has it"))
	default:
	}
	c.mu.Unlock()
	return c.list.Next(ctx, limit)
}

func (c *claimed) Lost() <-chan struct{} { c.mu.Lock(); defer c.mu.Unlock(); return c.lost }
func (c *claimed) Close()                { c.closed++ }

// What was read before another process took over is delivered by that one: also where nothing can be read or confirmed, so that no call of the source says so.
func TestARelayThatLosesItsSourceForgetsWhatItHasRead(t *testing.T) {
	t.Parallel()
	source := &claimed{list: newList(sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "a"}, sinks.Message{Key: "a"}), lost: make(chan struct{})}
	var healed atomic.Bool
	sink := &recorder{fail: func(sinks.Message) error {
		if !healed.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	config := quick(source, sink)
	config.BatchSize, config.Window = 2, 2
	relay, stop := start(t, config)
	until(t, func() bool { return relay.Stats().Full && relay.Stats().Failed > 2 })

	source.mu.Lock()
	lost := source.lost
	source.confirmed = 2
	close(lost)
	source.mu.Unlock()
	until(t, func() bool { return source.Lost() != lost })
	failed := relay.Stats().Failed
	until(t, func() bool { return relay.Stats().Failed > failed+1 }) // of what was read anew: deliveries of before have ended
	healed.Store(true)
	until(t, source.isConfirmed(4))
	require.Equal(t, []string{"3", "4"}, sink.ids())
	require.NoError(t, stop())
	require.Equal(t, 1, source.closed)
	require.Positive(t, relay.Stats().SourceErrors)
}

// However the sink fails, and whenever the relay is stopped, every message is delivered, and of each key the last messages come in order.
func TestOrderIsKeptForEachKeyWhateverFails(t *testing.T) {
	t.Parallel()
	messages := make([]sinks.Message, 2000)
	for i := range messages {
		messages[i] = sinks.Message{ID: fmt.Sprint(i), Key: fmt.Sprint(rand.IntN(40)), Barrier: rand.IntN(200) == 0}
	}
	source, sink := newList(messages...), &recorder{fail: func(sinks.Message) error {
		if rand.IntN(5) == 0 {
			return errors.New("not now")
		}
		return nil
	}}
	config := quick(source, sink)
	config.BatchSize, config.Window, config.Parallelism = 20, 200, 4
	for range 10 {
		before := len(sink.ids())
		_, stop := start(t, config)
		until(t, func() bool { return len(sink.ids()) > before+100 || source.isConfirmed(len(messages))() })
		require.NoError(t, stop())
		source.restart()
	}
	start(t, config)
	until(t, source.isConfirmed(len(messages)))

	// A restart goes back; apart from that, messages of a key, and barriers for all keys, come in order.
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

func TestConfigIsRefusedWithFieldValueAndRule(t *testing.T) {
	t.Parallel()
	valid := sinks.Config{Source: newList(), Sink: &recorder{}}
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
