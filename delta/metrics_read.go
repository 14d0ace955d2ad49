package delta

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/db"
)

const (
	// metricsKept is how long figures are reused for other requests; failureKept is how long a failure is, so that waiting
	// requests get it too.
	metricsKept = 10 * time.Second
	failureKept = time.Second
	// metricsTimeout bounds reading, and how long an answer waits for resources to be counted.
	metricsTimeout = 5 * time.Second
)

// metrics reads the figures of the installation for Metrics.
type metrics struct {
	client *Client

	// mu is held while figures are read: concurrent requests get the same.
	mu     sync.Mutex
	latest *latestFigures
	err    error
	readAt time.Time

	countMu sync.Mutex
	counted resourceCounts
	// countErr is why the latest count failed. begun is when it began. running is closed at its end; nil if none runs.
	countErr error
	begun    time.Time
	running  chan struct{}
}

// latestFigures are the results of a few statements, each of which reads a bounded number of rows.
type latestFigures struct {
	attempts          []db.SumFiguresRow
	database          DatabaseMeasurement
	listeners, hidden int64
}

// readFigures reads figures, unless the latest are recent.
func (m *metrics) readFigures(ctx context.Context) (*latestFigures, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := metricsKept
	if m.err != nil {
		kept = failureKept
	}
	if m.readAt.IsZero() || time.Since(m.readAt) >= kept {
		m.latest, m.err = m.queryFigures(ctx)
		m.readAt = time.Now()
	}
	return m.latest, m.err
}

func (m *metrics) queryFigures(ctx context.Context) (*latestFigures, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), metricsTimeout) // other requests share the result
	defer cancel()
	r := &latestFigures{}
	err := m.readOnly(ctx, func(tx pgx.Tx) (err error) {
		q := db.New()
		if r.attempts, err = q.SumFigures(ctx, tx); err != nil {
			return fmt.Errorf("reading attempts: %w", err)
		}
		if r.database, err = measureDatabase(ctx, tx); err != nil {
			return err
		}
		if r.listeners, r.hidden, err = q.CountListeners(ctx, tx); err != nil {
			return fmt.Errorf("counting clients: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// readOnly runs a function in a transaction that cannot write.
func (m *metrics) readOnly(ctx context.Context, do func(pgx.Tx) error) error {
	return schemaError(pgx.BeginTxFunc(ctx, m.client.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, do))
}

// resourceCounts are the counts that read many rows.
type resourceCounts struct {
	// isKnown is false if nothing was counted, or the count failed.
	isKnown bool
	states  []db.CountStatesRow
	late    []db.CountLateRow
	// now is when they were counted, by the clock of the database.
	now time.Time
}

// countResources returns the latest counts. If they are old, it begins a count, and waits for it up to patience, because
// counting a large table takes longer than a scraper waits.
func (m *metrics) countResources(ctx context.Context, patience time.Duration) (resourceCounts, error) {
	if running := m.beginCount(ctx); running != nil {
		select {
		case <-running:
		case <-ctx.Done():
		case <-time.After(patience):
		}
	}
	m.countMu.Lock()
	defer m.countMu.Unlock()
	return m.counted, m.countErr
}

// beginCount begins a count, if one is due. It returns a channel that is closed at the end of the running count; nil if
// none runs.
func (m *metrics) beginCount(ctx context.Context) <-chan struct{} {
	every := m.client.config.CountResourcesInterval
	m.countMu.Lock()
	defer m.countMu.Unlock()
	if every < 0 || m.running != nil || (!m.begun.IsZero() && time.Since(m.begun) < every) {
		return m.running
	}
	m.begun, m.running = time.Now(), make(chan struct{})
	go m.runCount(context.WithoutCancel(ctx))
	return m.running
}

func (m *metrics) runCount(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.client.config.ResourceCleanerTimeout)
	defer cancel()
	counted, err := m.queryCounts(ctx)
	m.countMu.Lock()
	defer m.countMu.Unlock()
	m.counted, m.countErr = counted, err
	close(m.running)
	m.running = nil
}

func (m *metrics) queryCounts(ctx context.Context) (r resourceCounts, err error) {
	err = m.readOnly(ctx, func(tx pgx.Tx) (err error) {
		q := db.New()
		if r.now, err = q.Now(ctx, tx); err != nil {
			return err
		}
		if r.states, err = q.CountStates(ctx, tx, MaxCountedNamespaces); err != nil {
			return fmt.Errorf("counting resources: %w", err)
		}
		// The late counts have no bound, as those of states, because alerts compare them with each other and with rates.
		if r.late, err = q.CountLate(ctx, tx, db.CountLateParams{Grace: lateGrace, Longest: activities.LongestLease, Most: math.MaxInt32}); err != nil {
			return fmt.Errorf("counting late resources: %w", err)
		}
		return nil
	})
	if err != nil {
		return resourceCounts{}, err
	}
	r.isKnown = true
	return r, nil
}
