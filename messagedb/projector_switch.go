package messagedb

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/internal/backoff"
)

// watchBatches looks at how the projection stands after each batch, when the polling is asked for the delay before the next one.
func (p *Projector) watchBatches(strategy PollingStrategy) PollingStrategy {
	return func() Polling {
		delay := strategy()
		if delay == nil {
			return nil // which is refused
		}
		return func(retrieved, expected int) time.Duration {
			p.afterBatch(retrieved < expected)
			return delay(retrieved, expected)
		}
	}
}

// afterBatch is called when a batch has been handled. What fails for a while is tried after the next batch.
func (p *Projector) afterBatch(caughtUp bool) {
	ctx := p.consumer.readingContext(context.Background())
	if ctx.Err() != nil {
		return
	}
	if p.unsure.Load() {
		_ = p.restartRun()
		return
	}
	if !caughtUp || !p.building {
		return
	}
	err := p.switchLive(ctx)
	switch {
	case err == nil, ctx.Err() != nil:
	case IsTransient(err) && !errors.As(err, new(*switchError)):
		p.consumer.reportRetry(err)
		_ = backoff.Pause(ctx, p.retry.Delay()) // the run looks at its context
	default:
		_ = p.failRun(err)
	}
}

// switchError is an error of ProjectorConfig.Switch that a retry cannot help with.
type switchError struct{ err error }

func (e *switchError) Error() string {
	return "messagedb: the switch to this version of a projection: " + e.err.Error()
}
func (e *switchError) Unwrap() error { return e.err }

// switchLive makes this version the live one if it has all that the live one has. The rows of both are locked meanwhile, so that neither of
// them moves; the projector of the version that was live finds its own retired, and writes nothing more.
func (p *Projector) switchLive(ctx context.Context) error {
	switched := false
	err := pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		own, live, err := p.row.queryVersions(ctx, tx, p.row.lockAll)
		if err != nil {
			return p.explainError(err)
		}
		if live.Version == own.Version { // another projector of this version did it
			switched = true
			return nil
		}
		if complete, err := p.hasAllOf(ctx, tx, own, live); err != nil || !complete {
			return err
		}
		switched = true
		return p.makeLive(ctx, tx)
	})
	if errors.Is(err, pgx.ErrTxClosed) {
		err = &switchError{errEnded}
	}
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		err = &switchError{errAborted}
	}
	if err == nil && switched {
		p.building = false
		p.retry.Reset()
		p.updateStats(func(s *ProjectorStats) { s.Live = true })
		p.client.config.Logger.Info("messagedb: a version of a projection is live", "projection", p.row.name, "version", p.row.version)
	}
	return err
}

// hasAllOf reports whether this version has handled all that the live one has. Where no version is live, it has.
func (p *Projector) hasAllOf(ctx context.Context, tx pgx.Tx, own, live Projection) (bool, error) {
	store := p.client
	if p.db.pool == p.client.pool {
		store = p.client.InTx(tx) // the pool may have one connection only
	}
	options := p.consumer.options
	options.From, options.BatchSize = max(own.Position, p.consumer.lastHandled(), options.From-1)+1, 1
	next, err := store.readCategory(ctx, p.config.Category, options)
	if err != nil {
		return false, err
	}
	return len(next) == 0 || next[0].GlobalPosition > live.Position, nil
}

// lastHandled is the global position of the last message that this run has handled, 0 before the first. Only the goroutine of the run may ask.
func (c *Consumer) lastHandled() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return 0
	}
	return c.running.last.position
}

func (p *Projector) makeLive(ctx context.Context, tx pgx.Tx) error {
	if p.config.Switch != nil {
		err := callRecovering(ctx, func(ctx context.Context, _ *Message) error { return p.config.Switch(ctx, tx) }, nil)
		switch {
		case err == nil:
		case isTransientIn(tx, err):
			return err
		default:
			return &switchError{err}
		}
	}
	if _, err := tx.Exec(ctx, p.row.retireLive, p.row.name); err != nil {
		return p.explainError(err)
	}
	_, err := tx.Exec(ctx, p.row.makeLive, p.row.name, p.row.version)
	return p.explainError(err)
}
