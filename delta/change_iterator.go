package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// changesBatch is how many entries a reader reads at once.
	changesBatch    = 100
	maxChangesBatch = 10_000
	// changesPoll is how often a reader polls that has found nothing. Outcomes send no notifications, because a commit with
	// a notification waits for every other such commit.
	changesPoll = 200 * time.Millisecond
	// shortestChangesPause and longestChangesPause bound the backoff after a transient error.
	shortestChangesPause = 100 * time.Millisecond
	longestChangesPause  = 10 * time.Second
)

// Changes yields the entries of the log of changes behind a position, of the given kinds or of all, and waits for further
// ones. It ends when ctx does. It reads on after transient errors. Any other error is the last that it yields: a
// *[ChangePositionError] if the log cannot be read from the position without a gap, an *[InputError], or a permanent error
// of Postgres. It remembers nothing: keep the Position of the last change that was handled, or use [Client.ConsumeChanges].
//
// The entries of a resource come in their order, and none is skipped. An entry is held back until all transactions have
// ended that began to write before it, anywhere on the server: [Client.ChangeLog] shows for how long.
//
// Only kinds with [ObjectSettings].Log have entries. The client need not be started.
func (c *Client) Changes(ctx context.Context, from ChangePosition, kinds ...string) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		place, err := parseChangePosition("position", from)
		if err == nil {
			err = checkKinds("kinds", kinds)
		}
		r := &changeReader{client: c, kinds: kinds, members: 1, batch: changesBatch}
		for err == nil {
			var page changePage
			if page, err = r.awaitPage(ctx, place); err != nil {
				break
			}
			for _, change := range page.changes {
				if !yield(change, nil) {
					return
				}
			}
			place = page.end
		}
		if ctx.Err() == nil {
			yield(nil, fmt.Errorf("delta: changes: %w", err))
		}
	}
}

// ChangesEnd returns the position behind all entries that a reader can read now: [Client.Changes] yields later ones.
func (c *Client) ChangesEnd(ctx context.Context) (ChangePosition, error) {
	end, err := db.New().ChangesEnd(ctx, c.pool)
	if err != nil {
		return "", fmt.Errorf("delta: changes: %w", schemaError(err))
	}
	return logPosition{epoch: end.ChangeEpoch, xid: end.Xmin - 1, id: math.MaxInt64}.encode(), nil
}

// checkKinds checks names of kinds, which this client need not know.
func checkKinds(field string, kinds []string) error {
	for _, kind := range kinds {
		if err := checkName(field, kind); err != nil {
			return err
		}
	}
	return nil
}

// awaitPage reads the page behind a position, and waits until there is one. It retries after transient errors.
func (r *changeReader) awaitPage(ctx context.Context, from logPosition) (changePage, error) {
	page, err := r.retryReadPage(ctx, from)
	for err == nil && page.isEmpty {
		if err = backoff.Pause(ctx, changesPoll); err == nil {
			page, err = r.retryReadPage(ctx, from)
		}
	}
	return page, err
}

func (r *changeReader) retryReadPage(ctx context.Context, from logPosition) (page changePage, err error) {
	err = r.client.retryLogQuery(ctx, "reading the log of changes failed; it is tried again", func() error {
		page, err = r.readPage(ctx, from)
		return err
	})
	return page, err
}

// retryLogQuery repeats a query of a reader of the log until it does not fail with a transient error.
func (c *Client) retryLogQuery(ctx context.Context, warning string, do func() error) error {
	pauses := backoff.New(shortestChangesPause, longestChangesPause)
	for {
		err := do()
		if err == nil || !isTransientChange(err) || ctx.Err() != nil {
			return err
		}
		delay := pauses.Delay()
		c.config.Logger.Warn(warning, "error", err, "retry_in", delay)
		if err := backoff.Pause(ctx, delay); err != nil {
			return err
		}
	}
}

// isTransientChange reports whether the same statement of a reader may succeed a little later.
func isTransientChange(err error) bool {
	if errors.As(err, new(*ChangePositionError)) || errors.Is(err, ErrNoSchema) || errors.Is(err, errNoPrepared) ||
		errors.Is(err, ErrConsumerSuperseded) || errors.Is(err, db.ErrNoCodec) {
		return false
	}
	return db.IsTransient(err) // and what the codec does not decode: its key service may be away
}
