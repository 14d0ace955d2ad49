package sinks

import (
	"fmt"
	"io"
	"time"

	"github.com/chariot-giving/delta/internal/exposition"
)

// metricFamilies are in the order in which they are written. ObserveRelay of deltaotel has the same names.
var metricFamilies = exposition.NewTable([]exposition.Family{
	{Name: "delta_sink_running", Type: "gauge", Help: "1 while the relay runs, 0 while it does not."},
	{Name: "delta_sink_messages_total", Type: "counter", Help: "Messages of a relay that are finished, by what became of them."},
	{Name: "delta_sink_failed_attempts_total", Type: "counter", Help: "Attempts to deliver a message that failed."},
	{Name: "delta_sink_source_errors_total", Type: "counter", Help: "Reads and confirmations of the source that failed."},
	{Name: "delta_sink_unconfirmed", Type: "gauge", Help: "Messages that were read and are not finished, or wait for one that is not."},
	{Name: "delta_sink_waiting_keys", Type: "gauge", Help: "Keys, and messages without a key, that wait for their next attempt."},
	{Name: "delta_sink_full", Type: "gauge", Help: "1 while nothing more is read, because as much as may be is not finished."},
	{Name: "delta_sink_age_seconds", Type: "gauge", Help: "How old the oldest message is that was read and is not finished; 0 where there is none."},
})

// WriteMetrics writes the stats of relays in Prometheus' text format, with HELP and TYPE, in one text for all relays of a process. The keys
// are the values of the label relay, such as the name of the consumer or the slot: they must be valid UTF-8, and few. docs/metrics.md has a
// table.
//
//	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
//		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
//		_ = sinks.WriteMetrics(w, map[string]sinks.Stats{"bills": relay.Stats()})
//	})
//
// It returns the error of w, and may be called concurrently. Texts of other packages may precede and follow it.
func WriteMetrics(w io.Writer, relays map[string]Stats) error {
	text := metricFamilies.New()
	for name, stats := range relays {
		relay := exposition.Labels("relay", name)
		for outcome, n := range map[string]int64{"delivered": stats.Delivered, "filtered": stats.Filtered, "set_aside": stats.SetAside} {
			text.Add("delta_sink_messages_total", exposition.Labels("relay", name, "outcome", outcome), float64(n))
		}
		text.Add("delta_sink_failed_attempts_total", relay, float64(stats.Failed))
		text.Add("delta_sink_source_errors_total", relay, float64(stats.SourceErrors))
		text.Add("delta_sink_unconfirmed", relay, float64(stats.Unconfirmed))
		text.Add("delta_sink_waiting_keys", relay, float64(stats.Waiting))
		text.Add("delta_sink_running", relay, exposition.Flag(stats.Running))
		text.Add("delta_sink_full", relay, exposition.Flag(stats.Full))
		text.Add("delta_sink_age_seconds", relay, stats.Age(time.Now()).Seconds())
	}
	if _, err := text.WriteTo(w); err != nil {
		return fmt.Errorf("sinks: metrics: %w", err)
	}
	return nil
}

// Age returns how old the oldest unfinished message is at a time, 0 if there is none. It grows while the sink is away.
func (s Stats) Age(now time.Time) time.Duration {
	if s.Oldest.IsZero() {
		return 0
	}
	return max(now.Sub(s.Oldest), 0) // the clock of the source may be ahead
}
