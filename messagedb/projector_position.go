package messagedb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/internal/backoff"
)

// The position of a projection is fenced by itself: a transaction moves it from the position that this projector knows to that of the message
// that it handles, before the handler is called. Of two that handle the same message, the second waits for the row, finds it moved, and writes
// nothing. A lease or a takeover was rejected: it needs time limits, and two processes that are restarted when they lose would take over from
// each other for ever.

var (
	errRestart = errors.New("messagedb: the projector begins again at the position that is saved")
	errEnded   = errors.New("messagedb: the transaction of a projector was ended by what it is for")
	errAborted = errors.New("messagedb: a statement in the transaction of a projector failed, and its error was not returned")
)

// loadPosition finds the position for Lag.
func (p *Projector) loadPosition(ctx context.Context) (int64, error) {
	own, _, err := p.row.queryVersions(ctx, p.db, p.row.load)
	var stopped *ProjectionError
	if errors.As(err, &stopped) {
		err = nil // the position is there all the same; 0 where there is no row
	}
	return own.Position, p.explainError(err)
}

// resumePosition finds the place where a run begins. The run compares it with the store before it hands on a message.
func (p *Projector) resumePosition(ctx context.Context) (place, error) {
	if p.isStopping() {
		p.consumer.interruptRun()
		return place{}, errStopped
	}
	own, live, err := p.row.readProjection(ctx, p.db)
	if err != nil {
		return place{}, p.explainError(err)
	}
	p.unsure.Store(false)
	p.saved, p.building = own.Position, live.Version != own.Version
	p.updateStats(func(s *ProjectorStats) { s.Live = !p.building })
	return place{own.Position, own.MessageID}, nil
}

// explainError adds what was being done to an error of the projection's database.
func (p *Projector) explainError(err error) error {
	var stopped *ProjectionError
	switch {
	case err == nil, errors.As(err, &stopped):
		return err
	case isUndefinedTable(err):
		return p.row.newStoppedError(ProjectionNotMigrated, "there is no table "+projectionTable+" in schema "+p.config.Schema+": call MigrateProjections")
	}
	if hidden := asRowSecurity(err); hidden != nil {
		return hidden
	}
	return fmt.Errorf("messagedb: the position of projection %q, version %d: %w", p.row.name, p.row.version, explainReadOnly(err))
}

// wrongStore explains an error of a feed that found that the store is not the one that the projection was made of: as a projector goes back
// only with its tables, there is no way on but another version.
func (p *Projector) wrongStore(rewound *RewoundError) *ProjectionError {
	if rewound.Found != "" {
		return p.row.newStoppedError(ProjectionOfOtherStore,
			fmt.Sprintf("message %s is at its global position %d, which had %s", rewound.Found, rewound.Position, rewound.Expected))
	}
	return p.row.newStoppedError(ProjectionAhead, fmt.Sprintf("its global position is %d, and the store ends at %d", rewound.Position, rewound.Last))
}

// applyMessage handles a message in a transaction, and repeats that while the database's errors are transient.
func (p *Projector) applyMessage(ctx context.Context, m *Message, project func(tx pgx.Tx) error) error {
	reading := p.consumer.readingContext(ctx)
	for {
		if p.unsure.Load() {
			return p.restartRun()
		}
		transient, err := p.applyOnce(ctx, reading, m, project)
		switch {
		case err == nil:
			p.retry.Reset()
			return nil
		case errors.Is(err, errRestart):
			return p.restartRun()
		case !transient:
			return err
		}
		p.consumer.reportRetry(err)
		if backoff.Pause(reading, p.retry.Delay()) != nil {
			return err
		}
	}
}

// applyOnce is one transaction. transient reports whether it may succeed when it is repeated.
func (p *Projector) applyOnce(ctx, reading context.Context, m *Message, project func(tx pgx.Tx) error) (transient bool, err error) {
	if m.GlobalPosition <= p.saved {
		p.countOvertaken()
		return false, nil
	}
	tx, err := p.db.Begin(ctx)
	if err != nil {
		return p.rowFailed(reading, p.explainError(err))
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		_ = tx.Rollback(ending) // does nothing after a commit
	}()
	done, err := p.advancePosition(ctx, tx, place{m.GlobalPosition, m.ID})
	if err != nil {
		return p.rowFailed(reading, err)
	}
	if done {
		p.countOvertaken()
		return false, nil
	}
	if err := project(tx); err != nil {
		return isTransientIn(tx, err), err
	}
	switch err := tx.Commit(ctx); {
	case errors.Is(err, pgx.ErrTxClosed):
		return false, errEnded
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return false, errAborted
	case err != nil:
		// If it was carried out, and the answer was lost, the next attempt finds the position moved.
		return IsTransient(err), p.explainError(err)
	}
	p.saved = m.GlobalPosition
	return false, nil
}

// rowFailed decides about an error of the projector's own statements. One that repeating does not help, such as a right that was taken away or a
// pool that was closed, ends Run whatever the error policy is: the message is not at fault, and skipping it, and all that follow, would lose them.
func (p *Projector) rowFailed(reading context.Context, err error) (transient bool, _ error) {
	switch {
	case IsTransient(err): // as errRestart is
		return true, err
	case reading.Err() != nil: // it was stopped
		return false, err
	default:
		return false, p.failRun(err)
	}
}

func (p *Projector) countOvertaken() {
	p.updateStats(func(s *ProjectorStats) { s.Overtaken++ })
}

// isTransientIn reports whether a user's error came from the database, and may not come again. Other errors, which [IsTransient] would repeat
// as they may be the network's, are the user's own.
func isTransientIn(tx pgx.Tx, err error) bool {
	var pg *pgconn.PgError
	return tx.Conn().IsClosed() || errors.As(err, &pg) && backoff.IsTransientCode(pg.Code)
}

// advancePosition moves the position of the row to that of a message. done reports that it is there already: another projector of this name and
// version has handled the message.
func (p *Projector) advancePosition(ctx context.Context, db rowQuerier, at place) (done bool, err error) {
	for {
		if at.position <= p.saved {
			return true, nil
		}
		tag, err := db.Exec(ctx, p.row.advance, p.row.name, p.row.version, p.saved, at.position, at.id)
		if err != nil {
			return false, p.explainError(err)
		}
		if tag.RowsAffected() == 1 {
			return false, nil
		}
		own, _, err := p.row.queryVersions(ctx, db, p.row.load)
		switch {
		case err != nil:
			return false, p.explainError(err)
		case own.Position < p.saved:
			p.updateStats(func(s *ProjectorStats) { s.Rewound++ })
			return false, errRestart
		}
		p.saved = own.Position // all up to there has been handled
	}
}

// savePosition saves the place behind messages that nothing was to be done for.
func (p *Projector) savePosition(ctx context.Context, at place) error {
	if p.again || p.failure != nil || at.position <= p.saved {
		return nil
	}
	_, err := p.advancePosition(ctx, p.db, at)
	if errors.Is(err, errRestart) {
		return p.restartRun()
	}
	if err == nil {
		p.saved = max(p.saved, at.position)
	}
	return err
}

// restartRun makes Run begin again at the position of the row.
func (p *Projector) restartRun() error {
	p.again = true
	p.consumer.interruptRun()
	return errRestart
}

// noteError is called with errors that are retried. After one that may have come from a lost connection, the run begins again at the position
// of the row, and looks at the store first: what is connected to next may have been restored from a backup, and messages that were read
// and passed over since the position was saved may be others now.
func (p *Projector) noteError(err error) {
	var pg *pgconn.PgError
	var handler *HandlerError
	isVictim := errors.As(err, &pg) && strings.HasPrefix(pg.Code, "40") // of a deadlock or a serialization failure: the connection stays
	if !isVictim && !errors.As(err, &handler) {
		p.unsure.Store(true)
	}
}
