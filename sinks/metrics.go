package sinks

import (
	"io"
	"time"

	"github.com/chariot-giving/delta/internal/exposition"
)

// metrics are what [WriteMetrics] writes. docs/sinks.md has the same table.
var metrics = exposition.NewTable([]exposition.Family{
	{Name: "delta_sink_running", Type: "gauge", Help: "1 while the relay runs, 0 while it does not."},
	{Name: "delta_sink_messages_total", Type: "counter", Help: "Messages that were finished: delivered, filtered or set aside."},
	{Name: "delta_sink_failures_total", Type: "counter", Help: "Attempts to deliver a message that failed."},
	{Name: "delta_sink_source_errors_total", Type: "counter", Help: "Reads and confirmations of the source that failed."},
	{Name: "delta_sink_unconfirmed_messages", Type: "gauge", Help: "Messages that were read and are not finished, or wait for one that is not."},
	{Name: "delta_sink_waiting_keys", Type: "gauge", Help: "Keys, or messages without a key, that wait for their next attempt."},
	{Name: "delta_sink_full", Type: "gauge", Help: "1 while the window is full, so that nothing more is read."},
	{Name: "delta_sink_oldest_seconds", Type: "gauge", Help: "Age of the oldest message that was read and is not finished, 0 if there is none."},
})

// WriteMetrics writes the figures of relays, by their names, in the text format of Prometheus. A nil Relay is one that does not run now. The counters
// are those of [Relay.Stats], so they begin at 0 with each Relay.
func WriteMetrics(w io.Writer, relays map[string]*Relay) error {
	text := metrics.New()
	for name, r := range relays {
		relay := exposition.Labels("relay", name)
		if r == nil {
			text.Add("delta_sink_running", relay, 0)
			continue
		}
		s := r.Stats()
		text.Add("delta_sink_running", relay, oneIf(s.Running))
		for result, count := range map[string]int64{"delivered": s.Delivered, "filtered": s.Filtered, "set_aside": s.SetAside} {
			text.Add("delta_sink_messages_total", exposition.Labels("relay", name, "result", result), float64(count))
		}
		text.Add("delta_sink_failures_total", relay, float64(s.Failed))
		text.Add("delta_sink_source_errors_total", relay, float64(s.SourceErrors))
		text.Add("delta_sink_unconfirmed_messages", relay, float64(s.Unconfirmed))
		text.Add("delta_sink_waiting_keys", relay, float64(s.Waiting))
		text.Add("delta_sink_full", relay, oneIf(s.Full))
		age := 0.0
		if !s.Oldest.IsZero() {
			age = max(0, time.Since(s.Oldest).Seconds())
		}
		text.Add("delta_sink_oldest_seconds", relay, age)
	}
	_, err := text.WriteTo(w)
	return err
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
