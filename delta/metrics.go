package delta

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/exposition"
)

// metricFamilies are in the order of the text. Metrics that a client measures too have the names, labels and units of
// deltaotel.
var metricFamilies = exposition.NewTable([]exposition.Family{
	{Name: "delta_database_up", Type: "gauge", Help: "1 if the figures could be read."},
	{Name: "delta_clients", Type: "gauge", Help: "Clients that are started, by their listeners. None where the role may not see the sessions of others."},
	{Name: "delta_work_attempts_total", Type: "counter", Help: "Attempts whose outcome was written, by resource, of all clients, a minute late."},
	{
		Name: "delta_work_attempt_duration_seconds", Type: "histogram",
		Help: "How long calls of Work and Finalize took, a WorkBatch once for each resource, of all clients, a minute late.",
	},
	{Name: "delta_outbox_due", Type: "gauge", Help: "Resources that wait for a dispatcher, at most 100,000."},
	{Name: "delta_outbox_age_seconds", Type: "gauge", Help: "For how long the first of them has waited; 0 where none does."},
	{Name: "delta_pass_age_seconds", Type: "gauge", Help: "How long ago a pass of the informer succeeded, of the shard for which it is longest ago."},
	{Name: "delta_pass_lag_seconds", Type: "gauge", Help: "How far the listing is behind, because passes fail, are left out or have never succeeded; 0 where it is not."},
	{Name: "delta_pass_failing", Type: "gauge", Help: "Shards whose latest pass has failed; a kind without shards has one."},
	{Name: "delta_sources_failing", Type: "gauge", Help: "Sources of the kind that do not run: their latest run failed, or nothing was heard of them for a minute."},
	{Name: "delta_source_phase", Type: "gauge", Help: "1 for what the source does, 0 for the other phases."},
	{Name: "delta_source_lag_seconds", Type: "gauge", Help: "For how long what has changed at the source has not been written, also while it does not run."},
	{Name: "delta_source_behind_bytes", Type: "gauge", Help: "How much of the log of a table's database is before the source, as it counted last."},
	{Name: "delta_source_behind_messages", Type: "gauge", Help: "How many messages are before the source, as it counted last."},
	{Name: "delta_refused", Type: "gauge", Help: "Objects that listings and sources name and that cannot be taken."},
	{Name: "delta_touches", Type: "gauge", Help: "Parents that have changed whose children are still to be touched, at most 100,000."},
	{Name: "delta_touches_age_seconds", Type: "gauge", Help: "How long ago the first of them has changed."},
	{Name: "delta_changes_held", Type: "gauge", Help: "Entries of the log of changes that no reader is given yet, because a transaction is open; at most 10,000."},
	{Name: "delta_changes_held_age_seconds", Type: "gauge", Help: "For how long the first of them has been held back; 0 where none is."},
	{Name: "delta_change_consumer_behind", Type: "gauge", Help: "Entries of the log of changes after the position of a consumer, at most 10,000."},
	{Name: "delta_change_consumer_lag_seconds", Type: "gauge", Help: "How old the first of them is; 0 where there is none."},
	{Name: "delta_change_consumer_running", Type: "gauge", Help: "1 while a process has the consumer."},
	{Name: "delta_change_consumer_lost", Type: "gauge", Help: "1 if the consumer cannot read on without a gap."},
	{Name: "delta_deletions_withheld", Type: "gauge", Help: "Deletions by listings that wait for somebody to decide."},
	{Name: "delta_resources", Type: "gauge", Help: "Resources by state, counted from time to time."},
	{Name: "delta_late", Type: "gauge", Help: "Resources whose next step is more than a minute overdue, counted from time to time."},
	{Name: "delta_late_age_seconds", Type: "gauge", Help: "For how long the first of them had been due; 0 where none is late."},
})

// Metrics returns a handler that serves the metrics of the installation, read from Postgres, as text for Prometheus. They
// cover all clients, so one process serves them, and needs neither a started client nor a metrics library. `delta metrics`
// serves it. docs/metrics.md has a table.
//
// It reads in a transaction that writes nothing, and at most every 10 seconds, however often it is asked. Resources are
// counted, which reads the whole table, every [Config].CountResourcesInterval; if that takes longer than 5 seconds, the
// counts are in a later answer. If the database does not answer, the text has only delta_database_up, which is 0.
//
// It panics if the client is nil.
func Metrics(c *Client) http.Handler {
	if c == nil {
		panic("delta: Metrics: the client is nil: give one that NewClient has made")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := c.metrics.readText(r.Context(), metricsTimeout)
		if err != nil {
			c.config.Logger.Warn("metrics cannot be read", "error", err)
		}
		w.Header().Set("Content-Type", exposition.ContentType)
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(text)
	})
}

// WriteMetrics writes once what [Metrics] serves. It waits until resources are counted.
func (c *Client) WriteMetrics(ctx context.Context, w io.Writer) error {
	text, err := c.metrics.readText(ctx, c.config.ResourceCleanerTimeout)
	if err != nil {
		return fmt.Errorf("delta: metrics: %w", err)
	}
	_, err = w.Write(text)
	return err
}

// readText returns the metrics as text. It waits up to patience for a count of resources. The text is complete even beside
// an error, except for the metrics that could not be read.
func (m *metrics) readText(ctx context.Context, patience time.Duration) ([]byte, error) {
	e := metricFamilies.New()
	var counted resourceCounts
	read, err := m.readFigures(ctx)
	if err == nil {
		counted, err = m.countResources(ctx, patience)
		read.exposeFigures(e)
		counted.exposeCounts(e, read.attempts)
	}
	e.Add("delta_database_up", "", exposition.Flag(read != nil))
	var text bytes.Buffer
	_, _ = e.WriteTo(&text) // to memory
	return text.Bytes(), err
}

// exposeFigures adds the metrics of latestFigures.
func (r *latestFigures) exposeFigures(e *exposition.Text) {
	if r.hidden == 0 {
		e.Add("delta_clients", "", float64(r.listeners))
	}
	for i := range r.attempts {
		exposeAttempts(e, &r.attempts[i])
	}
	for _, d := range r.database.Due {
		kind := exposition.Labels("kind", d.Kind)
		e.Add("delta_outbox_due", kind, float64(d.Count))
		e.Add("delta_outbox_age_seconds", kind, d.Oldest.Seconds())
	}
	for _, p := range r.database.Passes {
		kind := exposition.Labels("kind", p.Kind)
		if p.Age != nil {
			e.Add("delta_pass_age_seconds", kind, p.Age.Seconds())
		}
		e.Add("delta_pass_lag_seconds", kind, p.Lag.Seconds())
		e.Add("delta_pass_failing", kind, float64(p.Failing))
		e.Add("delta_deletions_withheld", kind, float64(p.Withheld))
	}
	for _, refused := range r.database.Refused {
		e.Add("delta_refused", exposition.Labels("kind", refused.Kind), float64(refused.Count))
	}
	for _, t := range r.database.Touches {
		e.Add("delta_touches", exposition.Labels("kind", t.Kind), float64(t.Count))
		e.Add("delta_touches_age_seconds", exposition.Labels("kind", t.Kind), t.Age.Seconds())
	}
	exposeSources(e, r.database.Sources)
	e.Add("delta_changes_held", "", float64(r.database.HeldChanges))
	e.Add("delta_changes_held_age_seconds", "", r.database.HeldFor.Seconds())
	for _, c := range r.database.Consumers {
		consumer := exposition.Labels("consumer", c.Name, "member", c.Member)
		e.Add("delta_change_consumer_behind", consumer, float64(c.Behind))
		e.Add("delta_change_consumer_lag_seconds", consumer, c.Lag.Seconds())
		e.Add("delta_change_consumer_running", consumer, exposition.Flag(c.IsRunning))
		e.Add("delta_change_consumer_lost", consumer, exposition.Flag(c.IsLost))
	}
}

func exposeSources(e *exposition.Text, sources []SourceMeasurement) {
	failing := map[string]float64{}
	for _, s := range sources {
		failing[s.Kind] += exposition.Flag(s.Phase == SourceFailed || s.Phase == SourceSilent)
		source := exposition.Labels("kind", s.Kind, "source", s.Name)
		for _, phase := range sourcePhases {
			e.Add("delta_source_phase", exposition.Labels("kind", s.Kind, "source", s.Name, "phase", string(phase)), exposition.Flag(s.Phase == phase))
		}
		if s.Lag != nil {
			e.Add("delta_source_lag_seconds", source, s.Lag.Seconds())
		}
		if s.BehindBytes != nil {
			e.Add("delta_source_behind_bytes", source, float64(*s.BehindBytes))
		}
		if s.BehindMessages != nil {
			e.Add("delta_source_behind_messages", source, float64(*s.BehindMessages))
		}
	}
	for kind, n := range failing {
		e.Add("delta_sources_failing", exposition.Labels("kind", kind), n)
	}
}

// exposeAttempts adds the attempts of a kind. Outcomes without a count are 0, so that Prometheus sees them rise.
func exposeAttempts(e *exposition.Text, s *db.SumFiguresRow) {
	counts := attemptsOf(&db.Figure{
		Synced: s.Synced, Finalized: s.Finalized, Failed: s.Failed, Degraded: s.Degraded, Deleted: s.Deleted, Snoozed: s.Snoozed, Undecodable: s.Undecodable,
	})
	for o, n := range counts {
		e.Add("delta_work_attempts_total", exposition.Labels("kind", s.Kind, "outcome", string(countedOutcomes[o])), float64(n))
	}
	const histogram = "delta_work_attempt_duration_seconds"
	sum := int64(0)
	for b := range durationBuckets {
		if b < len(s.Durations) {
			sum += s.Durations[b]
		}
		bound := "+Inf"
		if b < durationBuckets-1 {
			bound = strconv.FormatFloat(boundOf(b).Seconds(), 'g', -1, 64)
		}
		e.Add(histogram+"_bucket", exposition.Labels("kind", s.Kind, "le", bound), float64(sum))
	}
	kind := exposition.Labels("kind", s.Kind)
	e.Add(histogram+"_sum", kind, s.Seconds)
	e.Add(histogram+"_count", kind, float64(sum))
}

// exposeCounts adds the counts of resources, and of late ones for all kinds.
func (r *resourceCounts) exposeCounts(e *exposition.Text, kinds []db.SumFiguresRow) {
	if !r.isKnown {
		return
	}
	for _, s := range r.states {
		e.Add("delta_resources", exposition.Labels("kind", s.Kind, "namespace", s.Namespace, "state", string(s.State)), float64(s.Count))
	}
	late := map[string]db.CountLateRow{}
	for _, k := range kinds {
		late[k.Kind] = db.CountLateRow{Oldest: r.now}
	}
	for _, l := range r.late {
		late[l.Kind] = l
	}
	for kind, l := range late {
		of := exposition.Labels("kind", kind)
		e.Add("delta_late", of, float64(l.Count))
		e.Add("delta_late_age_seconds", of, r.now.Sub(l.Oldest).Seconds())
	}
}
