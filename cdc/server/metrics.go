package server

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// counters are what /metrics tells, besides the slots.
type counters struct {
	set                                         *metrics.Set
	clients                                     *metrics.Gauge
	transactions, changes, bytes, acks, badAcks *metrics.Counter
	slow, refused, snapshotRows                 *metrics.Counter
}

func newCounters() *counters {
	set := metrics.NewSet()
	return &counters{
		set:          set,
		clients:      set.NewGauge("delta_stream_clients", nil),
		transactions: set.NewCounter("delta_stream_transactions_total"),
		changes:      set.NewCounter("delta_stream_changes_total"),
		bytes:        set.NewCounter("delta_stream_sent_bytes_total"),
		acks:         set.NewCounter("delta_stream_acks_total"),
		badAcks:      set.NewCounter("delta_stream_bad_acks_total"),
		slow:         set.NewCounter("delta_stream_slow_clients_total"),
		refused:      set.NewCounter("delta_stream_unauthorized_requests_total"),
		snapshotRows: set.NewCounter("delta_stream_snapshot_rows_total"),
	}
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	var text bytes.Buffer
	s.metrics.set.WritePrometheus(&text)
	s.mu.Lock()
	snapshots := len(s.snapshots)
	s.mu.Unlock()
	metrics.WriteGaugeUint64(&text, "delta_stream_snapshots", uint64(snapshots))
	slots, err := s.slots(ctx)
	up := uint64(1)
	if err != nil { // what is known without the database is told all the same
		s.config.Logger.Warn("cdc/server: the slots cannot be listed", "error", err)
		up = 0
	}
	metrics.WriteGaugeUint64(&text, "delta_stream_database_up", up)
	for _, one := range slots {
		label := fmt.Sprintf("{slot=%q}", one.Name) // of a-z, 0-9 and _
		active := uint64(0)
		if one.Active {
			active = 1
		}
		metrics.WriteGaugeUint64(&text, "delta_stream_slot_active"+label, active)
		metrics.WriteGaugeFloat64(&text, "delta_stream_slot_lag_bytes"+label, float64(one.LagBytes))
		metrics.WriteGaugeFloat64(&text, "delta_stream_slot_retained_bytes"+label, float64(one.RetainedBytes))
		metrics.WriteGaugeFloat64(&text, "delta_stream_slot_lag_seconds"+label, one.LagSeconds)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(text.Bytes())
}

// quietLog has the web server's own complaints, such as of handshakes that failed, logged at a low level.
func quietLog(logger *slog.Logger) *log.Logger {
	return slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
}
