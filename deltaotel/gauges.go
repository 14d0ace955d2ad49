package deltaotel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// observeGauges registers the gauges, which are read when metrics are collected.
func (i *instruments) observeGauges(meter metric.Meter) error {
	m := maker{meter: meter}
	up := m.count("delta.up", "", "1 where a part of the client is as Health wants it, 0 where it is not.")
	slots := m.count("delta.work.slots", "{call}", "How many calls of Work this client runs at once at most.")
	due := m.count("delta.outbox.due", "{resource}", "Resources that wait for a dispatcher, at most 100,000. One client measures it for all.")
	age := m.seconds("delta.outbox.age", "For how long the first of them has waited; 0 where none does.")
	resources := m.count("delta.resources", "{resource}", "Resources by state, counted from time to time. One client measures it for all.")
	passAge := m.seconds("delta.pass.age", "How long ago a pass of the informer succeeded, of the shard for which it is longest ago.")
	passLag := m.seconds("delta.pass.lag", "How far the listing is behind, because passes fail or are left out; 0 where it is not.")
	failing := m.count("delta.pass.failing", "{shard}", "Shards whose latest pass has failed; a kind without shards has one.")
	withheld := m.count("delta.deletions.withheld", "{resource}", "Deletions by listings that wait for somebody to decide.")
	if err := errors.Join(m.errs...); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if client := i.client.Load(); client != nil {
			for _, part := range client.Parts {
				value := int64(0)
				if part.IsUp {
					value = 1
				}
				o.ObserveInt64(up, value, metric.WithAttributes(attribute.String("part", string(part.Part)), attribute.String("kind", part.Kind)))
			}
			for kind, n := range client.Slots {
				o.ObserveInt64(slots, int64(n), metric.WithAttributes(attribute.String("kind", kind)))
			}
		}
		database := i.database.Load()
		if database == nil {
			return nil
		}
		for _, d := range database.Due {
			of := metric.WithAttributes(attribute.String("kind", d.Kind))
			o.ObserveInt64(due, d.Count, of)
			o.ObserveFloat64(age, d.Oldest.Seconds(), of)
		}
		for _, s := range database.States {
			of := metric.WithAttributes(attribute.String("kind", s.Kind), attribute.String("namespace", s.Namespace), attribute.String("state", string(s.State)))
			o.ObserveInt64(resources, s.Count, of)
		}
		for _, p := range database.Passes {
			of := metric.WithAttributes(attribute.String("kind", p.Kind))
			if p.Age != nil {
				o.ObserveFloat64(passAge, p.Age.Seconds(), of)
			}
			o.ObserveFloat64(passLag, p.Lag.Seconds(), of)
			o.ObserveInt64(failing, p.Failing, of)
			o.ObserveInt64(withheld, p.Withheld, of)
		}
		return nil
	}, up, slots, due, age, resources, passAge, passLag, failing, withheld)
	return err
}
