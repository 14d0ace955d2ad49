package activities

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	writeTimeout = 5 * time.Second
	writeTries   = 6
	// claimTries are fewer, because a worker that does not reach Postgres leaves the attempt to another one.
	claimTries = 3
	// maxRetryPause bounds the pause between two tries: a worker with an outcome should write it before a dispatcher
	// finds the row.
	maxRetryPause = time.Second
	// minRetryPause is the pause before the second try.
	minRetryPause = time.Second / 4
)

// newLockedPauses returns the pauses between looks at rows that other transactions have locked.
func newLockedPauses() *backoff.Backoff { return backoff.New(20*time.Millisecond, time.Second) }

// retryTransient repeats a write that failed for a passing reason, at most tries times. The write is fenced, so
// repeating one that took effect, with its answer lost, does no harm.
func retryTransient(ctx context.Context, tries int, do func(context.Context) error) error {
	pauses := backoff.New(minRetryPause, maxRetryPause)
	for try := 1; ; try++ {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			return do(ctx)
		}()
		if err == nil || try == tries || !db.IsTransient(err) || !sleep(ctx, pauses.Delay()) {
			return err
		}
	}
}

func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
