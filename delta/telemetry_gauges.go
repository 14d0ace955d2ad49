package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/chariot-giving/delta/db"
)

const (
	// measureEvery is how often client and database are measured. countEvery is the default interval at which resources are
	// counted.
	measureEvery = 15 * time.Second
	countEvery   = 5 * time.Minute
	// firstMeasure delays the first measurement, because a listener and dispatchers that have just started are not down.
	firstMeasure = time.Second
	// measureLease is the lease of the client that measures the database: three intervals.
	measureLease = 3 * measureEvery
)

// recordWoken records workflows, of a number of resources each, that were woken, or that could not be.
func (d *dispatcher) recordWoken(way DispatchWay, workflows, resources int, err error) {
	if d.telemetry != nil && workflows > 0 {
		d.telemetry.record(context.Background(), DispatchMeasurement{Kind: d.kind, Way: way, Workflows: workflows, Resources: workflows * resources, Err: err})
	}
}

// runMeasuring records the state of the client at intervals, and of the database if no other client does.
func (e *engine) runMeasuring(ctx context.Context) {
	m := databaseMeter{client: e.client, id: uuid.NewString(), installation: e.installation}
	every := e.client.timing.measure
	tick := time.NewTicker(min(firstMeasure, every))
	defer tick.Stop()
	defer func() {
		e.client.telemetry.record(context.Background(), ClientMeasurement{})
		m.endLease()
	}()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if first {
			tick.Reset(every)
		}
		e.client.telemetry.record(ctx, e.measureClient(ctx))
		m.measureIfLeased(ctx)
	}
}

// measureClient returns which parts of the client are healthy.
func (e *engine) measureClient(ctx context.Context) ClientMeasurement {
	m := ClientMeasurement{Slots: map[string]int{}}
	up := map[PartMeasurement]bool{}
	for _, part := range e.healthParts() {
		up[part] = true
	}
	for _, wrong := range e.client.findProblems(ctx) {
		up[PartMeasurement{Part: wrong.Part, Kind: wrong.Kind}] = false
	}
	for part, isUp := range up {
		part.IsUp = isUp
		m.Parts = append(m.Parts, part)
	}
	for kind, r := range e.client.config.Controllers.byKind {
		m.Slots[kind] = r.settings.Parallelism
	}
	return m
}

// healthParts returns the parts that Health checks.
func (e *engine) healthParts() []PartMeasurement {
	all := []PartMeasurement{{Part: HealthClient}, {Part: HealthPostgres}, {Part: HealthTemporal}, {Part: HealthListener}}
	if len(e.workers) == 0 {
		all = append(all, PartMeasurement{Part: HealthWorker})
	}
	for _, w := range e.workers {
		all = append(all, PartMeasurement{Part: HealthWorker, Kind: w.kind})
	}
	for _, kind := range slices.Sorted(maps.Keys(e.dispatchers)) {
		all = append(all, PartMeasurement{Part: HealthDispatcher, Kind: kind})
	}
	return all
}

// databaseMeter measures the database for all clients, while it has the lease.
type databaseMeter struct {
	client *Client
	// id identifies this client's run, installation the database.
	id, installation string
	// until is when the lease expires; zero if another client has it.
	until time.Time
	// states are the resources at their latest count, at counted.
	states  []StateMeasurement
	counted time.Time
}

// measureIfLeased measures the database, unless another client does.
func (m *databaseMeter) measureIfLeased(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.client.config.ResourceCleanerTimeout)
	defer cancel()
	began := time.Now()
	rows, err := db.New().LeaseMeasuring(ctx, m.client.pool, db.LeaseMeasuringParams{Client: m.id, Lease: measureLease})
	if err != nil {
		m.warnFailed(ctx, fmt.Errorf("leasing it: %w", err))
		if time.Now().After(m.until) {
			m.forgetMeasured() // another client may measure it by now
		}
		return
	}
	if rows == 0 {
		m.forgetMeasured()
		return
	}
	m.until = began.Add(measureLease)
	measured, err := m.readDatabase(ctx)
	if err != nil {
		m.warnFailed(ctx, err)
		return
	}
	m.client.telemetry.record(ctx, measured)
}

func (m *databaseMeter) warnFailed(ctx context.Context, err error) {
	if ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded { //nolint:errorlint // it is the context's own
		m.client.config.Logger.Warn("measuring the database for telemetry failed; it is tried again", "error", err, "retry_in", m.client.timing.measure)
	}
}

func (m *databaseMeter) readDatabase(ctx context.Context) (measured DatabaseMeasurement, err error) {
	if measured, err = measureDatabase(ctx, m.client.pool); err != nil {
		return measured, err
	}
	if err := m.countStates(ctx); err != nil {
		m.warnFailed(ctx, err) // the other measurements are still recorded
	}
	measured.Installation, measured.States = m.installation, m.states
	return measured, nil
}

// countStates counts resources, unless the latest count is recent.
func (m *databaseMeter) countStates(ctx context.Context) error {
	every := m.client.config.CountResourcesInterval
	if every < 0 || (!m.counted.IsZero() && time.Since(m.counted) < every) {
		return nil
	}
	m.counted = time.Now() // a table that is too large for the timeout is not read again at once
	counts, err := db.New().CountStates(ctx, m.client.pool, MaxCountedNamespaces)
	if err != nil {
		return fmt.Errorf("counting resources: %w", err)
	}
	m.states = nil
	for _, c := range counts {
		m.states = append(m.states, StateMeasurement{Kind: c.Kind, Namespace: c.Namespace, State: c.State, Count: c.Count})
	}
	return nil
}

// forgetMeasured clears this client's measurement of the database, because another client measures it.
func (m *databaseMeter) forgetMeasured() {
	if !m.until.IsZero() {
		m.until, m.states, m.counted = time.Time{}, nil, time.Time{}
		m.client.telemetry.record(context.Background(), DatabaseMeasurement{})
	}
}

// endLease lets another client measure at once.
func (m *databaseMeter) endLease() {
	if m.until.IsZero() {
		return
	}
	m.forgetMeasured()
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if err := db.New().EndMeasuring(ctx, m.client.pool, m.id); err != nil {
		m.client.config.Logger.Info("another client measures the database when the lease has passed", "error", err)
	}
}
