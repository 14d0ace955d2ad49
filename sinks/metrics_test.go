package sinks_test

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/sinks"
)

// metricsOf returns the samples of a relay, by name and labels.
func metricsOf(t *testing.T, name string, relay *sinks.Relay) map[string]float64 {
	t.Helper()
	var text strings.Builder
	require.NoError(t, sinks.WriteMetrics(&text, map[string]sinks.Stats{name: relay.Stats()}))
	samples := map[string]float64{}
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		sample, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		require.True(t, found, line)
		n, err := strconv.ParseFloat(value, 64)
		require.NoError(t, err, line)
		samples[sample+"}"] = n
	}
	return samples
}

// The age of the oldest message, the number of waiting keys and the failed attempts show that a sink is away. Nothing is lost, and when the
// sink is back the metrics are as before.
func TestMetricsShowASinkThatIsAway(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	away.Store(true)
	occurred := time.Now().Add(-10 * time.Minute)
	source := newListSource(sinks.Message{Key: "a", Time: occurred}, sinks.Message{Key: "b", Time: time.Now()}, sinks.Message{Key: "a", Time: time.Now()})
	sink := &recorder{fail: func(sinks.Message) error {
		if away.Load() {
			return errors.New("connection refused")
		}
		return nil
	}}
	relay, _ := startRelay(t, quickConfig(source, sink))
	awaitTrue(t, func() bool { return relay.Stats().Failed >= 4 })
	while := metricsOf(t, `the "bills"`, relay)
	const label = `{relay="the \"bills\""`
	require.GreaterOrEqual(t, while["delta_sink_age_seconds"+label+"}"], 600.0)
	require.InDelta(t, 3, while["delta_sink_unconfirmed"+label+"}"], 0)
	require.GreaterOrEqual(t, while["delta_sink_failed_attempts_total"+label+"}"], 4.0)
	require.Zero(t, while["delta_sink_messages_total"+label+`,outcome="delivered"}`])

	away.Store(false)
	awaitTrue(t, source.isConfirmed(3))
	require.ElementsMatch(t, []string{"1", "2", "3"}, sink.acceptedIDs())
	awaitTrue(t, func() bool {
		after := metricsOf(t, `the "bills"`, relay)
		return after["delta_sink_age_seconds"+label+"}"] == 0 && after["delta_sink_unconfirmed"+label+"}"] == 0 && after["delta_sink_waiting_keys"+label+"}"] == 0
	})
	require.InDelta(t, 3, metricsOf(t, `the "bills"`, relay)["delta_sink_messages_total"+label+`,outcome="delivered"}`], 0)
}

func TestMetricsOfSeveralRelaysAreOneText(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	require.NoError(t, sinks.WriteMetrics(&text, map[string]sinks.Stats{
		"a": {Delivered: 1, SetAside: 2, Full: true}, "b": {Filtered: 3, SourceErrors: 4, Oldest: time.Now().Add(time.Hour)},
	}))
	require.Equal(t, 1, strings.Count(text.String(), "# TYPE delta_sink_messages_total counter\n"))
	for _, sample := range []string{
		`delta_sink_messages_total{relay="a",outcome="delivered"} 1`, `delta_sink_messages_total{relay="a",outcome="set_aside"} 2`,
		`delta_sink_messages_total{relay="b",outcome="filtered"} 3`, `delta_sink_full{relay="a"} 1`, `delta_sink_full{relay="b"} 0`,
		`delta_sink_source_errors_total{relay="b"} 4`, `delta_sink_age_seconds{relay="b"} 0`,
	} {
		require.Contains(t, text.String(), sample+"\n")
	}
	require.ErrorIs(t, sinks.WriteMetrics(broken{}, map[string]sinks.Stats{"a": {}}), errBroken)
}

var errBroken = errors.New("broken pipe")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }
