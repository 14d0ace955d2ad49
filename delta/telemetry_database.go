package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// measureDatabase measures the outbox, listings and sources of each kind, and the progress of readers of the log of
// changes, with a few statements, each of which reads a bounded number of rows.
func measureDatabase(ctx context.Context, conn db.DBTX) (m DatabaseMeasurement, err error) {
	q := db.New()
	due, err := q.MeasureDue(ctx, conn, MaxDueCounted)
	if err != nil {
		return m, fmt.Errorf("counting due resources: %w", err)
	}
	for _, d := range due {
		m.Due = append(m.Due, DueMeasurement{Kind: d.Kind, Count: d.Count, Oldest: d.Oldest})
	}
	latest, err := q.MeasurePasses(ctx, conn)
	if err != nil {
		return m, fmt.Errorf("reading the latest passes: %w", err)
	}
	now := time.Now()
	for i := range latest {
		measured, err := measurePass(&latest[i], now)
		if err != nil {
			return m, err
		}
		m.Passes = append(m.Passes, measured)
	}
	refused, err := q.CountRefused(ctx, conn)
	if err != nil {
		return m, fmt.Errorf("counting refused objects: %w", err)
	}
	for _, r := range refused {
		m.Refused = append(m.Refused, RefusedMeasurement{Kind: r.Kind, Count: r.Count})
	}
	touches, err := q.MeasureTouches(ctx, conn, MaxTouchesCounted)
	if err != nil {
		return m, fmt.Errorf("counting parents that have changed: %w", err)
	}
	for _, t := range touches {
		m.Touches = append(m.Touches, TouchMeasurement{Kind: t.Kind, Count: t.Count, Age: t.Age})
	}
	sources, err := listSources(ctx, conn)
	if err != nil {
		return m, fmt.Errorf("reading how sources stand: %w", err)
	}
	for i := range sources {
		s := &sources[i]
		m.Sources = append(m.Sources, SourceMeasurement{
			Kind: s.Kind, Name: s.Name, Phase: s.Phase, Lag: s.Lag, BehindBytes: s.BehindBytes, BehindMessages: s.BehindMessages,
		})
	}
	log, err := measureChanges(ctx, conn, MaxChangesCounted)
	if err != nil {
		return m, fmt.Errorf("measuring the log of changes: %w", err)
	}
	m.HeldChanges, m.HeldFor = log.Held, log.Lag
	for i := range log.Consumers {
		c := &log.Consumers[i]
		m.Consumers = append(m.Consumers, ChangeConsumerMeasurement{
			Name: c.Name, Member: memberLabel(c), Behind: c.Behind, Lag: c.Lag, IsRunning: c.IsRunning, IsLost: c.IsLost,
		})
	}
	return m, nil
}

// memberLabel names a member of a group, as `delta doctor` does.
func memberLabel(c *ChangeConsumerStatus) string {
	if c.Members == 1 {
		return ""
	}
	return fmt.Sprintf("%d of %d", c.Member, c.Members)
}
