package deltaotel

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/chariot-giving/delta/delta"
)

// gauges has the latest measurements of each client and of its database, by the client's Telemetry.
type gauges struct {
	mu        sync.Mutex
	clients   map[*Telemetry]delta.ClientMeasurement
	databases map[*Telemetry]measuredDatabase
}

type measuredDatabase struct {
	at time.Time
	delta.DatabaseMeasurement
}

// setClient stores the measurements of a client. A stopped client has no parts.
func (g *gauges) setClient(of *Telemetry, m delta.ClientMeasurement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(m.Parts) == 0 && len(m.Slots) == 0 {
		delete(g.clients, of)
		return
	}
	if g.clients == nil {
		g.clients = map[*Telemetry]delta.ClientMeasurement{}
	}
	g.clients[of] = m
}

// setDatabase stores a client's measurements of the database. They are empty if another client measures it.
func (g *gauges) setDatabase(by *Telemetry, m delta.DatabaseMeasurement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.Installation == "" && len(m.Due) == 0 && len(m.States) == 0 && len(m.Passes) == 0 && len(m.Sources) == 0 && len(m.Consumers) == 0 {
		delete(g.databases, by)
		return
	}
	if g.databases == nil {
		g.databases = map[*Telemetry]measuredDatabase{}
	}
	g.databases[by] = measuredDatabase{time.Now(), m}
}

// removeTelemetry removes the measurements of a Telemetry.
func (g *gauges) removeTelemetry(one *Telemetry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.clients, one)
	delete(g.databases, one)
}

// observeGauges registers the gauges, which are read when metrics are collected.
func (i *instruments) observeGauges(meter metric.Meter) error {
	m := instrumentMaker{meter: meter}
	up := m.newCountGauge("delta.up", "", "1 where a part of the client is as Health wants it, 0 where it is not.")
	slots := m.newCountGauge("delta.work.slots", "{call}", "How many calls of Work this client runs at once at most.")
	due := m.newCountGauge("delta.outbox.due", "{resource}", "Resources that wait for a dispatcher, at most 100,000. One client measures it for all.")
	age := m.newSecondsGauge("delta.outbox.age", "For how long the first of them has waited; 0 where none does.")
	resources := m.newCountGauge("delta.resources", "{resource}", "Resources by state, counted from time to time. One client measures it for all.")
	passAge := m.newSecondsGauge("delta.pass.age", "How long ago a pass of the informer succeeded, of the shard for which it is longest ago.")
	passLag := m.newSecondsGauge("delta.pass.lag", "How far the listing is behind, because passes fail or are left out; 0 where it is not.")
	failing := m.newCountGauge("delta.pass.failing", "{shard}", "Shards whose latest pass has failed; a kind without shards has one.")
	withheld := m.newCountGauge("delta.deletions.withheld", "{resource}", "Deletions by listings that wait for somebody to decide.")
	bridged := newBridged(&m)
	if err := errors.Join(m.errs...); err != nil {
		return err
	}
	callback, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		shown := i.gauges.mergeAll()
		bridged.observeAll(o, &shown)
		for of, value := range shown.up {
			o.ObserveInt64(up, value, metric.WithAttributes(attribute.String("part", string(of.Part)), attribute.String("kind", of.Kind)))
		}
		for kind, n := range shown.slots {
			o.ObserveInt64(slots, n, withKindLabel(kind))
		}
		for kind, d := range shown.due {
			o.ObserveInt64(due, d.Count, withKindLabel(kind))
			o.ObserveFloat64(age, d.Oldest.Seconds(), withKindLabel(kind))
		}
		for s, n := range shown.states {
			of := metric.WithAttributes(attribute.String("kind", s.Kind), attribute.String("namespace", s.Namespace), attribute.String("state", string(s.State)))
			o.ObserveInt64(resources, n, of)
		}
		for kind, p := range shown.passes {
			of := withKindLabel(kind)
			if p.Age != nil {
				o.ObserveFloat64(passAge, p.Age.Seconds(), of)
			}
			o.ObserveFloat64(passLag, p.Lag.Seconds(), of)
			o.ObserveInt64(failing, p.Failing, of)
			o.ObserveInt64(withheld, p.Withheld, of)
		}
		return nil
	}, append(bridged.allInstruments(), up, slots, due, age, resources, passAge, passLag, failing, withheld)...)
	if err != nil {
		return err
	}
	i.callbacks = append(i.callbacks, callback)
	return nil
}

func withKindLabel(kind string) metric.ObserveOption {
	return metric.WithAttributes(attribute.String("kind", kind))
}

// shownGauges has the merged measurements of all clients.
type shownGauges struct {
	// The keys of up are parts without IsUp, those of states measurements without Count.
	up     map[delta.PartMeasurement]int64
	slots  map[string]int64
	due    map[string]delta.DueMeasurement
	states map[delta.StateMeasurement]int64
	passes map[string]delta.LastPassMeasurement
	// bridged has the databases, for the gauges of each source and consumer.
	bridged []delta.DatabaseMeasurement
}

// mergeAll merges the measurements of all clients: a part is up if it is up in each of them, counts are added, and the largest age is shown. For a database
// the latest measurement counts, because another client may have taken over the measuring, and the former one may not know it yet.
func (g *gauges) mergeAll() shownGauges {
	s := shownGauges{
		up: map[delta.PartMeasurement]int64{}, slots: map[string]int64{}, due: map[string]delta.DueMeasurement{},
		states: map[delta.StateMeasurement]int64{}, passes: map[string]delta.LastPassMeasurement{},
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, client := range g.clients {
		s.addClient(client)
	}
	latest := map[string]measuredDatabase{}
	for _, database := range g.databases {
		if there, ok := latest[database.Installation]; !ok || there.at.Before(database.at) {
			latest[database.Installation] = database
		}
	}
	for _, database := range latest {
		s.addDatabase(database.DatabaseMeasurement)
	}
	return s
}

func (s *shownGauges) addClient(m delta.ClientMeasurement) {
	for _, part := range m.Parts {
		of, value := delta.PartMeasurement{Part: part.Part, Kind: part.Kind}, int64(0)
		if part.IsUp {
			value = 1
		}
		if there, ok := s.up[of]; !ok || value < there {
			s.up[of] = value
		}
	}
	for kind, n := range m.Slots {
		s.slots[kind] += int64(n)
	}
}

func (s *shownGauges) addDatabase(m delta.DatabaseMeasurement) {
	s.bridged = append(s.bridged, m)
	for _, d := range m.Due {
		there := s.due[d.Kind]
		s.due[d.Kind] = delta.DueMeasurement{Count: there.Count + d.Count, Oldest: max(there.Oldest, d.Oldest)}
	}
	for _, one := range m.States {
		n := one.Count
		one.Count = 0
		s.states[one] += n
	}
	for _, p := range m.Passes {
		there := s.passes[p.Kind]
		if there.Age != nil && (p.Age == nil || *there.Age > *p.Age) {
			p.Age = there.Age
		}
		p.Lag, p.Failing, p.Withheld = max(there.Lag, p.Lag), there.Failing+p.Failing, there.Withheld+p.Withheld
		s.passes[p.Kind] = p
	}
}
