package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// listSource is a source with a fixed list of messages. After rewind it starts at the first unconfirmed message.
type listSource struct {
	mu        sync.Mutex
	messages  []sinks.Message
	next      int
	confirmed int // how many
	fails     int // how many calls of Next and Confirm fail
}

func newListSource(messages ...sinks.Message) *listSource {
	for i := range messages {
		messages[i].Position = i + 1
		if messages[i].ID == "" {
			messages[i].ID = fmt.Sprint(i + 1)
		}
	}
	return &listSource{messages: messages}
}

func (l *listSource) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
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

func (l *listSource) Confirm(_ context.Context, position any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return errors.New("not now")
	}
	l.confirmed = position.(int)
	return nil
}

func (l *listSource) rewind() { l.next = l.confirmed }

func (l *listSource) isConfirmed(n int) func() bool {
	return func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.confirmed == n }
}

// recorder is a sink that keeps the messages that it accepted, and fails as fail says.
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

func (r *recorder) acceptedIDs() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.accepted {
		ids = append(ids, m.ID)
	}
	return ids
}

func quickConfig(source sinks.Source, sink sinks.Sink) sinks.Config {
	return sinks.Config{
		Source: source, Sink: sink, ShortestRetry: time.Millisecond, LongestRetry: 5 * time.Millisecond, ConfirmInterval: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// startRelay runs a relay until stop is called or the test ends.
func startRelay(t *testing.T, config sinks.Config) (relay *sinks.Relay, stop func() error) {
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

func awaitTrue(t *testing.T, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 3*time.Minute, time.Millisecond)
}
