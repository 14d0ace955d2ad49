package sinktest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// Patience is how long a test waits for an event that must happen. It costs no time if the event happens.
const Patience = 3 * time.Minute

// Delivered is a message as the receiving system has it.
type Delivered struct{ ID, Key string }

// counter is a source of numbers, each with one of seven keys.
type counter struct{ next, confirmed, n int }

func (c *counter) Next(ctx context.Context, limit int) ([]sinks.Message, error) {
	var page []sinks.Message
	for ; len(page) < limit && c.next < c.n; c.next++ {
		page = append(page, sinks.Message{
			ID: fmt.Sprint(c.next), Key: fmt.Sprint(c.next % 7), Subject: "number", Type: "new", Position: c.next + 1,
		})
	}
	if page == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return page, nil
}

func (c *counter) Confirm(_ context.Context, position any) error {
	c.confirmed = position.(int) //nolint:forcetypeassert // it is ours
	return nil
}

// CheckOutage relays n messages, of the subject number and the type new, while harm breaks the system and repairs it. Then delivered must
// return each message, those of a key in their order. Some deliveries must have failed.
func CheckOutage(t *testing.T, n int, config sinks.Config, harm func(relay *sinks.Relay), delivered func() []Delivered) {
	t.Helper()
	source := &counter{n: n}
	config.Source, config.ShortestRetry, config.LongestRetry = source, time.Millisecond, 20*time.Millisecond
	config.Logger = slog.New(slog.DiscardHandler)
	relay, err := sinks.NewRelay(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	harm(relay)
	require.Eventually(t, func() bool { return relay.Stats().Delivered == int64(n) }, Patience, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	require.Equal(t, n, source.confirmed)
	require.Positive(t, relay.Stats().Failed)

	last, seen := map[string]int{}, map[int]bool{}
	for _, m := range delivered() {
		var number int
		_, err := fmt.Sscan(m.ID, &number)
		require.NoError(t, err)
		if previous, found := last[m.Key]; found {
			require.Greater(t, number, previous)
		}
		last[m.Key] = number
		seen[number] = true
	}
	require.Len(t, seen, n)
}
