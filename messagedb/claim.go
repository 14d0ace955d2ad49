package messagedb

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// claimLasts is how long a cursor keeps its claim without writing to the position stream while messages wait. The cursor renews it after a third of this
	// time and gives up after two thirds, so that the clocks of processes need not agree.
	claimLasts = 15 * time.Second
	// claimPolling is how long a cursor waits between checks of another process's claim.
	claimPolling = time.Second
)

// claim is the right to read a category for a position stream. The last message of that stream names the owner, and only a process that knows the version of the
// stream can write the next message. So a claim is taken, renewed and released by saving the position again.
//
// Rejected: an advisory lock, because it needs a connection of its own, is lost behind a pooler, and outlives a process if its connection is half open; and a table,
// because it would need a migration. The price is one message in the position stream for each renewal, unless saving a position has renewed the claim already.
type claim struct {
	consumer *Consumer
	run      string
	lasts    time.Duration
	owned    context.Context //nolint:containedctx // it ends with the claim
	lose     context.CancelCauseFunc
	renewing sync.WaitGroup

	writing sync.Mutex // held while the position is written
	version int64      // of the position stream
	saved   place
	unsure  *claimRecord // the last write, if its outcome is not known

	mu      sync.Mutex
	renewed time.Time
	given   place
	waiting bool // a message that was given is not saved
}

// claimRecord is one write of a position. It is repeated, with the same id, until its outcome is known.
type claimRecord struct {
	message ProposedMessage
	at      place
	began   time.Time
}

func newClaim(consumer *Consumer) *claim {
	owned, lose := context.WithCancelCause(context.Background())
	return &claim{consumer: consumer, run: NewID(), lasts: consumer.client.claimLasts, owned: owned, lose: lose}
}

// acquireClaim waits until no other cursor has the position stream, and claims it.
func (c *claim) acquireClaim(ctx context.Context) error {
	var rival rivalClaim
	for {
		found, isFree, err := c.checkRival(ctx, &rival)
		if err != nil {
			return err
		}
		if isFree {
			c.version, c.saved = found.version, found.place
			err := retryTransient(ctx, c.consumer.reportRetry, c.renewOnce)
			if !errors.Is(err, ErrConsumerSuperseded) {
				return err
			}
		}
		if err := backoff.Pause(ctx, claimPolling); err != nil {
			return err
		}
	}
}

// rivalClaim is the claim of another process, as seen from this one.
type rivalClaim struct {
	version int64
	since   time.Time // when this version was seen for the first time while messages waited; zero where none does
}

// checkRival reads the position, and reports whether the claim can be taken: it was released, or nothing was written for takesAfter although messages waited. Time
// without waiting messages does not count, because a cursor writes nothing while there is nothing to read.
func (c *claim) checkRival(ctx context.Context, rival *rivalClaim) (found savedPosition, isFree bool, err error) {
	err = retryTransient(ctx, c.consumer.reportRetry, func(ctx context.Context) (err error) {
		isFree = false
		found, err = c.consumer.readPositionStream(ctx, c.consumer.config.PositionStream)
		if err != nil || !found.claimed {
			isFree = err == nil
			return err
		}
		at, _, err := c.consumer.findBeginning(ctx, found.place)
		if err != nil {
			return err
		}
		options := c.consumer.options
		options.From, options.BatchSize = max(at.position+1, 0), 1
		next, err := c.consumer.client.readCategory(ctx, c.consumer.config.Category, options)
		if err != nil {
			return err
		}
		switch {
		case len(next) == 0:
			rival.since = time.Time{}
		case rival.since.IsZero() || rival.version != found.version:
			*rival = rivalClaim{found.version, time.Now()}
		}
		isFree = !rival.since.IsZero() && time.Since(rival.since) > c.consumer.client.takesAfter
		return nil
	})
	return found, isFree, err
}

// keepRenewed renews the claim while returned messages are not saved, and ends it if it could not be renewed for two thirds of its time.
func (c *claim) keepRenewed() {
	ticker := time.NewTicker(c.lasts / 15)
	defer ticker.Stop()
	for {
		select {
		case <-c.owned.Done():
			return
		case <-ticker.C:
		}
		age := c.measureAge()
		switch {
		case !c.isWaiting() || age <= c.lasts/3:
		case age > c.lasts*2/3:
			c.lose(ErrConsumerSuperseded)
		case c.writing.TryLock(): // what is being written otherwise renews it, too
			ctx, cancel := context.WithTimeout(c.owned, c.lasts*2/3-age)
			if err := c.writePosition(ctx, c.saved, true); err != nil && ctx.Err() == nil {
				c.consumer.reportRetry(err)
			}
			cancel()
			c.writing.Unlock()
		}
	}
}

func (c *claim) renewOnce(ctx context.Context) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.writePosition(ctx, c.saved, true)
}

// savePosition saves a position, which renews the claim.
func (c *claim) savePosition(ctx context.Context, at place) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.writePosition(ctx, at, true)
}

// releaseClaim lets another process take over at once, if this one has the claim.
func (c *claim) releaseClaim() {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.unsure != nil || !c.takenAt().IsZero() {
		_ = c.writePosition(ctx, c.saved, false) // on failure, the claim expires a little later
	}
}

// writePosition writes a position at the version that this run wrote last. A write without a known outcome is repeated first: if the server did carry it out, it is
// recognised by its id.
func (c *claim) writePosition(ctx context.Context, at place, claimed bool) error {
	if cause := context.Cause(c.owned); cause != nil && claimed {
		return cause // it may have been given up while the caller waited
	}
	if c.unsure != nil {
		if err := c.sendUnsure(ctx); err != nil {
			return err
		}
	}
	c.unsure = &claimRecord{ProposedMessage{
		ID: NewID(), Type: recordedType, Data: recorded{at.position}, Metadata: recorder{c.run, at.id, claimed},
	}, at, time.Now()}
	return c.sendUnsure(ctx)
}

func (c *claim) sendUnsure(ctx context.Context) error {
	stream := c.consumer.config.PositionStream
	version, err := c.consumer.client.writeMessages(ctx, stream, []ProposedMessage{c.unsure.message}, c.version, Idempotent())
	var conflict *VersionConflictError
	if errors.As(err, &conflict) {
		c.unsure = nil
		err = ErrConsumerSuperseded
		if conflict.Actual < c.version { // a position stream only grows
			err = &RewoundError{Stream: stream, Position: c.version, Last: conflict.Actual}
		}
		if !c.takenAt().IsZero() {
			c.lose(err)
		}
	}
	if err != nil {
		return err
	}
	c.version, c.saved = version, c.unsure.at
	c.mu.Lock()
	c.renewed = c.unsure.began // not the end of it: another process may have seen it all the time since
	c.mu.Unlock()
	c.unsure = nil
	return nil
}

// takenAt is when the claim was taken or renewed, as seen before the write; zero before the first.
func (c *claim) takenAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewed
}

func (c *claim) measureAge() time.Duration { return time.Since(c.takenAt()) }

func (c *claim) isWaiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

func (c *claim) setGiven(last place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given, c.waiting = last, true
}

func (c *claim) setSaved(at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = c.waiting && at != c.given
}
