package server

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/exposition"
)

// counters are the figures of /metrics that are counted as things happen. All others are collected for each scrape.
type counters struct {
	set                                         *metrics.Set
	transactions, changes, bytes, acks, badAcks *metrics.Counter
	slow, refused, snapshotRows, undecodable    *metrics.Counter
}

func newCounters() *counters {
	set := metrics.NewSet()
	return &counters{
		set:          set,
		transactions: set.NewCounter("delta_stream_transactions_total"),
		changes:      set.NewCounter("delta_stream_changes_total"),
		bytes:        set.NewCounter("delta_stream_sent_bytes_total"),
		acks:         set.NewCounter("delta_stream_acks_total"),
		badAcks:      set.NewCounter("delta_stream_bad_acks_total"),
		slow:         set.NewCounter("delta_stream_slow_clients_total"),
		refused:      set.NewCounter("delta_stream_unauthorized_requests_total"),
		snapshotRows: set.NewCounter("delta_stream_snapshot_rows_total"),
		undecodable:  set.NewCounter("delta_stream_undecodable_rows_total"),
	}
}

// durationBuckets are the upper bounds of the buckets of request durations, in seconds. The creation of a slot may wait half a minute for
// transactions.
var durationBuckets = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// observeRequest records how long a request took. Streams are left out, because they last as long as their clients want.
func (c *counters) observeRequest(route string, status int, took time.Duration) {
	name := fmt.Sprintf(`delta_stream_request_duration_seconds{route=%q,code="%d"}`, route, status)
	c.set.GetOrCreatePrometheusHistogramExt(name, durationBuckets).Update(took.Seconds())
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// Unwrap returns the writer for [http.ResponseController].
func (a *statusRecorder) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader remembers the first status.
func (a *statusRecorder) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write sets the status to 200 if there is none yet, as net/http does.
func (a *statusRecorder) Write(data []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(data)
}

// isStream reports whether the answer has started a stream.
func (a *statusRecorder) isStream() bool {
	return a.status == http.StatusSwitchingProtocols || a.status == http.StatusOK && a.Header().Get("Content-Type") == "text/event-stream"
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	e := metricFamilies.New()
	e.Include(s.metrics.set.WritePrometheus)
	e.Include(metrics.WriteProcessMetrics)
	e.Include(metrics.WriteFDMetrics)
	e.Add("delta_stream_build_info", buildLabels(), 1)
	s.mu.Lock()
	e.Add("delta_stream_snapshots", "", float64(len(s.snapshots)))
	s.mu.Unlock()
	s.exposeStreams(e)
	s.exposeSpill(e)
	s.exposeSlots(ctx, e)
	w.Header().Set("Content-Type", exposition.ContentType)
	_, _ = e.WriteTo(w)
}

func (s *Server) exposeStreams(e *exposition.Text) {
	bySlot, sums, clients := s.streams.collectStats()
	e.Add("delta_stream_clients", "", float64(clients))
	e.Add("delta_stream_spilled_bytes", "", float64(sums.SpilledBytes))
	e.Add("delta_stream_spilled_transactions_total", "", float64(sums.SpilledTransactions))
	e.Add("delta_stream_reconnects_total", "", float64(sums.Reconnects))
	e.Add("delta_stream_heartbeats_total", "", float64(sums.Heartbeats))
	for slot, stats := range bySlot {
		label := slotLabel(slot)
		e.Add("delta_stream_slot_unacknowledged", label, float64(stats.Waiting))
		e.Add("delta_stream_slot_unacknowledged_age_seconds", label, stats.Lag.Seconds())
		if stats.HeartbeatDelay > 0 { // 0 means not measured
			e.Add("delta_stream_slot_delivery_seconds", label, stats.HeartbeatDelay.Seconds())
		}
	}
}

func (s *Server) exposeSpill(e *exposition.Text) {
	limit := s.config.Stream.WithDefaults().SpillLimit
	e.Add("delta_stream_spill_limit_bytes", "", float64(max(0, limit)))
	if limit < 0 { // there are no files
		return
	}
	free, size, err := diskSpace(spillFolder(&s.config.Stream))
	switch {
	case err != nil:
		s.config.Logger.Warn("cdc/server: the disk of temporary files cannot be measured", "folder", spillFolder(&s.config.Stream), "error", err)
	case size > 0:
		e.Add("delta_stream_spill_free_bytes", "", float64(free))
		e.Add("delta_stream_spill_size_bytes", "", float64(size))
	}
}

// spillFolder returns the folder for temporary files of streams.
func spillFolder(c *cdc.Config) string { return cmp.Or(c.SpillFolder, os.TempDir()) }

// walStatuses are the values of the label status: wal_status of Postgres, and missing for a slot that another program has dropped.
var walStatuses = []string{"reserved", "extended", "unreserved", "lost", statusMissing}

func (s *Server) exposeSlots(ctx context.Context, e *exposition.Text) {
	slots, err := s.describeSlots(ctx)
	if err != nil { // expose the other metrics without the database
		s.config.Logger.Warn("cdc/server: the slots cannot be listed", "error", err)
	}
	e.Add("delta_stream_database_up", "", exposition.Flag(err == nil))
	for _, one := range slots {
		if one.Temporary { // see streamRegistry.open
			continue
		}
		label := slotLabel(one.Name)
		for _, status := range walStatuses {
			e.Add("delta_stream_slot_wal_status", label[:len(label)-1]+`,status="`+status+`"}`, exposition.Flag(one.Status == status))
		}
		if one.Status == statusMissing {
			continue
		}
		e.Add("delta_stream_slot_active", label, exposition.Flag(one.Active))
		e.Add("delta_stream_slot_lag_bytes", label, float64(one.LagBytes))
		e.Add("delta_stream_slot_retained_bytes", label, float64(one.RetainedBytes))
		if one.LagSeconds != nil {
			e.Add("delta_stream_slot_lag_seconds", label, *one.LagSeconds)
		}
		if one.InactiveSeconds != nil {
			e.Add("delta_stream_slot_inactive_seconds", label, *one.InactiveSeconds)
		}
		s.exposeConsumers(e, &one)
		exposeSnapshot(e, &one)
		if one.SafeWALBytes != nil {
			e.Add("delta_stream_slot_safe_wal_bytes", label, float64(*one.SafeWALBytes))
		}
	}
}

// exposeConsumers exposes the consumers of a slot if this server knows their positions.
func (s *Server) exposeConsumers(e *exposition.Text, slot *slotJSON) {
	for _, c := range slot.Consumers {
		if c.LagBytes == nil {
			continue
		}
		label := fmt.Sprintf(`{slot=%q,consumer=%q}`, slot.Name, c.Name)
		e.Add("delta_stream_consumer_attached", label, exposition.Flag(c.Attached))
		e.Add("delta_stream_consumer_lost", label, exposition.Flag(c.Lost))
		e.Add("delta_stream_consumer_lag_bytes", label, float64(*c.LagBytes))
	}
}

// exposeSnapshot exposes how long this server has held the snapshot of a slot, and each table that is locked for the slot. GET /v2/slots
// also has the processes.
func exposeSnapshot(e *exposition.Text, slot *slotJSON) {
	locks := slot.Reading
	if slot.Held != nil {
		e.Add("delta_stream_snapshot_held_seconds", slotLabel(slot.Name), time.Since(slot.Held.Since).Seconds())
		locks = append(locks, slot.Held.Tables...)
	}
	since := map[string]time.Time{} // several connections may have locked a table
	for _, lock := range locks {
		if first, known := since[lock.Table]; !known || lock.Since.Before(first) {
			since[lock.Table] = lock.Since
		}
	}
	for table, first := range since {
		e.Add("delta_stream_table_locked_seconds", `{slot="`+slot.Name+`",table="`+labelEscaper.Replace(table)+`"}`, time.Since(first).Seconds())
	}
}

// labelEscaper escapes the value of a label as the exposition format requires.
var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// slotLabel does not escape, because names of slots consist of a-z, 0-9 and _.
func slotLabel(slot string) string { return `{slot="` + slot + `"}` }

const modulePath = "github.com/chariot-giving/delta"

// buildLabels describe this build. In a program that imports the server, Delta is a dependency and not the main module.
var buildLabels = sync.OnceValue(func() string {
	version, revision := "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == modulePath && m.Version != "" {
				version = m.Version
			}
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				revision = setting.Value
			}
		}
	}
	return fmt.Sprintf("{version=%q,revision=%q,goversion=%q}", version, revision, runtime.Version())
})

// newErrorLog logs the HTTP server's own errors, such as failed handshakes, at level debug.
func newErrorLog(logger *slog.Logger) *log.Logger {
	return slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
}
