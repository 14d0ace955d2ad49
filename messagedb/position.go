package messagedb

import (
	"context"
	"errors"
	"time"
)

// recordedType is the type of the messages that hold positions, as in Eventide.
const recordedType = "Recorded"

// positionType is the type of the categories that positions are saved in.
const positionType = "position"

type recorded struct {
	Position int64 `json:"position"`
}

// recorder is the metadata of a position: which call of Run saved it.
type recorder struct {
	Run string `json:"run"`
}

// ConsumerStats count what a consumer has done since it was made.
type ConsumerStats struct {
	// Position is the global position of the last message that was handled, 0 before the first.
	Position int64
	// Saved is the position that a restart would begin at, 0 if there is none.
	Saved int64
	// Handled counts messages whose handler succeeded, Ignored those of types without one, Skipped those that the poison
	// policy passed over, Retried the errors that were retried.
	Handled, Ignored, Skipped, Retried int64
	// Conflicts counts the runs that ended with a [*PositionConflictError]: another consumer has the same position stream.
	Conflicts int64
}

// Stats returns the counts as they are now, without a round trip.
func (c *Consumer) Stats() ConsumerStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Lag is what a consumer has before it.
type Lag struct {
	// Messages counts what it has not handled.
	Messages int64
	// Last is the global position of the last message that it has to handle, 0 if there is none.
	Last int64
	// Age is for how long the oldest of them has been waiting, by the server's clock: from when the transaction that wrote it
	// began.
	Age time.Duration
}

// Lag asks the database what the consumer has before it: of its group member and correlation, if it has those. A condition
// is left out of account. It costs the more the longer the lag is. For a consumer that does not run, and has not, it counts
// from the position that is saved.
func (c *Consumer) Lag(ctx context.Context) (Lag, error) {
	position := c.Stats().Position
	if position == 0 {
		saved, err := c.loadSaved(ctx)
		if err != nil {
			return Lag{}, err
		}
		position = saved
		if saved == 0 {
			position = c.config.From - 1
		}
	}
	return c.client.countLag(ctx, c.config.Category, position, c.config.Correlation, c.config.Group)
}

func (c *Client) countLag(ctx context.Context, category string, position int64, correlation string, group *Group) (lag Lag, err error) {
	var member, size *int
	if group != nil {
		member, size = &group.Member, &group.Size
	}
	var seconds float64
	err = c.db.QueryRow(ctx, c.sql.lag, category, position, nullable(correlation), member, size).Scan(&lag.Messages, &lag.Last, &seconds)
	lag.Age = time.Duration(seconds * float64(time.Second))
	return lag, c.explain(err, call{doing: "counting what is new in category", category: category})
}

// head is the global position of the last message of the store, 0 if there is none.
func (c *Client) head(ctx context.Context) (position int64, err error) {
	err = c.db.QueryRow(ctx, c.sql.head).Scan(&position)
	return position, c.explain(err, call{doing: "asking for the last message of the store"})
}

// positionKeeper keeps the position of a consumer elsewhere than in the store: a [Projector] does.
type positionKeeper interface {
	// loadPosition is the global position of the last message that was handled, 0 if there is none. It may be called beside a run.
	loadPosition(ctx context.Context) (int64, error)
	// resumePosition is the same for a run that begins.
	resumePosition(ctx context.Context) (int64, error)
	// savePosition keeps the position of a message, if what was handled before did not do so.
	savePosition(ctx context.Context, position int64) error
}

// loadSaved reads the consumer's own position, wherever it is kept.
func (c *Consumer) loadSaved(ctx context.Context) (position int64, err error) {
	if c.keeper != nil {
		return c.keeper.loadPosition(ctx)
	}
	position, _, err = c.load(ctx, c.config.PositionStream)
	return position, err
}

// load reads a position, 0 if there is none, and the version of its stream.
func (c *Consumer) load(ctx context.Context, stream StreamName) (position, version int64, err error) {
	last, err := c.client.LastMessage(ctx, stream, "")
	if errors.Is(err, ErrNoMessage) {
		return 0, NoStreamVersion, nil
	}
	if err != nil {
		return 0, 0, err
	}
	version = last.Position
	if last.Type != recordedType {
		last, err = c.client.LastMessage(ctx, stream, recordedType)
		if errors.Is(err, ErrNoMessage) {
			return 0, version, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
	data, err := Decode[recorded](last)
	return data.Position, version, err
}

// resume finds where to begin.
func (c *Consumer) resume(r *run) (from int64, err error) {
	var position int64
	err = c.persist(r, func(ctx context.Context) error {
		if c.keeper != nil {
			position, err = c.keeper.resumePosition(ctx)
			return err
		}
		position, r.version, err = c.load(ctx, c.config.PositionStream)
		return err
	})
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	c.stats.Saved = position
	c.mu.Unlock()
	if c.keeper != nil && position > 0 {
		return position + 1, nil // it was saved with what was made of it
	}
	if position == 0 && c.config.PreviousSize > 0 {
		err = c.persist(r, func(ctx context.Context) error {
			position, err = c.leastOf(ctx, c.config.PreviousSize)
			return err
		})
	}
	if position == 0 {
		position = c.config.From
	}
	return position, err
}

// leastOf is the least position of the members of a group of that size, 0 if one of them has none: what is before it has
// been handled, whoever's it was.
func (c *Consumer) leastOf(ctx context.Context, size int) (least int64, err error) {
	for member := range size {
		position, _, err := c.load(ctx, c.config.positionStream(&Group{Member: member, Size: size}))
		if err != nil || position == 0 {
			return 0, err
		}
		if least == 0 || position < least {
			least = position
		}
	}
	return least, nil
}

// save writes the position if there is something new. It expects the version that it left, so that two consumers of one
// position find out; and it may be repeated, as it recognises what it wrote by the id. Until it has succeeded, nothing more
// is handled, so what is to be saved stays the same.
func (c *Consumer) save(ctx context.Context, r *run) error {
	if r.unsaved == 0 || r.dead.Load() {
		return nil
	}
	if c.keeper != nil {
		return c.saveKept(ctx, r)
	}
	if r.record.ID == "" {
		r.record = ProposedMessage{ID: NewID(), Type: recordedType, Data: recorded{r.last}, Metadata: recorder{r.id}}
	}
	for {
		version, err := c.client.write(ctx, c.config.PositionStream, []ProposedMessage{r.record}, r.version, Idempotent())
		if err == nil {
			r.version, r.unsaved, r.record = version, 0, ProposedMessage{}
			c.mu.Lock()
			c.stats.Saved = r.last
			c.mu.Unlock()
			return nil
		}
		var conflict *VersionConflictError
		if !errors.As(err, &conflict) {
			return err
		}
		adopted, loadErr := c.adopt(ctx, r)
		if loadErr != nil {
			return loadErr
		}
		if !adopted {
			r.unsaved = 0 // it is not ours to save any more
			c.mu.Lock()
			c.stats.Conflicts++
			c.mu.Unlock()
			return &PositionConflictError{Stream: c.config.PositionStream, cause: err}
		}
	}
}

// saveKept is save where something else keeps the position.
func (c *Consumer) saveKept(ctx context.Context, r *run) error {
	if err := c.keeper.savePosition(ctx, r.last); err != nil {
		return err
	}
	r.unsaved = 0
	c.mu.Lock()
	c.stats.Saved = r.last
	c.mu.Unlock()
	return nil
}

// adopt takes over the position stream from a run that wrote to it meanwhile, once for each: a process that died can have
// left one save that the server still carried out, when its successor had read the position already. Who writes twice lives.
func (c *Consumer) adopt(ctx context.Context, r *run) (bool, error) {
	last, err := c.client.LastMessage(ctx, c.config.PositionStream, "")
	if err != nil {
		return false, err
	}
	by, err := DecodeMetadata[recorder](last)
	if err != nil || by.Run == "" || by.Run == r.other {
		return false, nil //nolint:nilerr // metadata of a stranger's
	}
	r.other, r.version = by.Run, last.Position
	return true, nil
}
