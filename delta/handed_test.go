package delta_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// newUnconnected returns a client without connections, which only handles events.
func newUnconnected(t *testing.T, config *delta.Config) *delta.Client {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "postgres://localhost/nothing-connects")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	c, err := delta.NewClient(pool, config)
	require.NoError(t, err)
	return c
}

// failed returns a failed attempt of an object of a size.
func failed(name string, size int) activities.Observation {
	row := &deltatype.ResourceRow{ObjectKind: "account", ObjectID: name, Namespace: "default", Attempt: 1, EncodedObject: make([]byte, size)}
	return activities.Observation{
		Kind: "account", Namespace: "default", Attempt: 1, Outcome: activities.Outcome{Verdict: activities.VerdictFailed, Error: "503", Err: errBoom},
		Row: func() (*deltatype.ResourceRow, error) { return row, nil },
	}
}

// callbacks is a Telemetry and a log handler that call functions for dropped events.
type callbacks struct {
	free
	dropped func(delta.DroppedMeasurement)
	logged  func(slog.Record)
}

func (c *callbacks) Record(_ context.Context, m delta.Measurement) {
	if d, ok := m.(delta.DroppedMeasurement); ok && c.dropped != nil {
		c.dropped(d)
	}
}

func (*callbacks) Enabled(context.Context, slog.Level) bool { return true }
func (c *callbacks) Handle(_ context.Context, r slog.Record) error {
	if c.logged != nil {
		c.logged(r)
	}
	return nil
}
func (c *callbacks) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *callbacks) WithGroup(string) slog.Handler      { return c }

// requireEnds fails the test if do does not return, for example because of a lock.
func requireEnds(t *testing.T, why string, do func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		do()
	}()
	until(t, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}, why)
}

// Telemetry and the Logger are user code: they may call the client, which needs the lock of subscriptions.
func TestAHandlerOfDroppedEventsMaySubscribe(t *testing.T) {
	t.Parallel()
	var c *delta.Client
	var counted, subscribed atomic.Int64
	subscribe := func() {
		_, cancel := c.Subscribe(delta.EventCategoryObjectSynced)
		cancel()
		subscribed.Add(1)
	}
	user := &callbacks{
		dropped: func(m delta.DroppedMeasurement) {
			require.Equal(t, "events", m.What)
			counted.Add(int64(m.Count))
			subscribe()
		},
		logged: func(r slog.Record) {
			if strings.Contains(r.Message, "subscription") {
				subscribe()
			}
		},
	}
	c = newUnconnected(t, &delta.Config{Telemetry: user, Logger: slog.New(user)})
	full := &delta.SubscribeConfig{ChanSize: 1, Categories: []delta.EventCategory{delta.EventCategoryObjectFailed}}
	_, cancel := c.SubscribeConfig(full)
	c.SubscribeConfig(full)
	requireEnds(t, "events are handed out", func() {
		for range 3 {
			c.Observe(failed("ann", 1))
		}
	})
	require.EqualValues(t, 2*2, counted.Load(), "both subscriptions hold one of three")
	require.EqualValues(t, 2+2, subscribed.Load(), "Telemetry was called for two events, and the log has a line for each subscription")
	requireEnds(t, "a subscription is cancelled", cancel)
	requireEnds(t, "the client stops", func() { require.NoError(t, c.Stop(context.Background())) })
	require.EqualValues(t, 2+2+2, subscribed.Load(), "each drop is logged")
}

// The ErrorHandler continues while Telemetry is told of the failures that were dropped.
func TestTheErrorHandlerRunsBesideTelemetry(t *testing.T) {
	t.Parallel()
	release, handled := make(chan struct{}), make(chan string, 10)
	user := &callbacks{dropped: func(m delta.DroppedMeasurement) {
		require.Equal(t, delta.DroppedMeasurement{What: "failures", Count: 1}, m)
		close(release)
		<-handled
		require.Equal(t, "second", <-handled, "the ErrorHandler got the next failure meanwhile")
	}}
	c := newUnconnected(t, &delta.Config{Telemetry: user, Logger: slog.New(slog.DiscardHandler), ErrorHandler: func(_ context.Context, f delta.Failure) {
		<-release
		handled <- f.Resource.ObjectID
	}})
	c.SetMostHandedBytes(10_000)
	c.Observe(failed("first", 1))
	until(t, func() bool { return c.Handed() == 0 })
	c.Observe(failed("second", 8_000))
	requireEnds(t, "a failure is dropped", func() { c.Observe(failed("third", 8_000)) })
	require.NoError(t, c.Stop(context.Background()))
}

// Failures that wait for the ErrorHandler are bounded in size too. Dropped ones are counted and logged, even if the handler never returns.
func TestFailuresThatWaitForTheErrorHandlerHaveABoundInBytes(t *testing.T) {
	t.Parallel()
	var logs logBuffer
	var dropped atomic.Int64
	release := make(chan struct{})
	var handled []string
	config := &delta.Config{
		Telemetry: &callbacks{dropped: func(m delta.DroppedMeasurement) { dropped.Add(int64(m.Count)) }},
		Logger:    logs.logger(),
		ErrorHandler: func(_ context.Context, f delta.Failure) {
			<-release
			handled = append(handled, f.Resource.ObjectID)
		},
	}
	c := newUnconnected(t, config)
	c.SetMostHandedBytes(11_000)
	c.Observe(failed("larger than the bound", 20_000))
	until(t, func() bool { return c.Handed() == 0 }) // the handler has got it
	c.Observe(failed("a", 4_000))
	c.Observe(failed("b", 4_000))
	require.Equal(t, 2*(4_000+1<<10), c.Handed())
	c.Observe(failed("c", 4_000))
	until(t, func() bool { return logs.hasLine("level=WARN", "the ErrorHandler is too slow", "failures=1") })
	c.Observe(failed("d", 4_000))
	require.EqualValues(t, 2, dropped.Load())
	require.Equal(t, 1, strings.Count(logs.String(), "too slow"), "not for each of them")
	close(release)
	require.NoError(t, c.Stop(context.Background()))
	require.Equal(t, []string{"larger than the bound", "a", "b"}, handled)
	require.Zero(t, c.Handed())
	require.Equal(t, 2, strings.Count(logs.String(), "too slow"), "Stop logs the remaining drops")
}
