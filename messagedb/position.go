package messagedb

import (
	"context"
	"errors"
	"time"
)

// recordedType is the type of the messages that hold positions, as in Eventide.
const recordedType = "Recorded"

type recorded struct {
	Position int64 `json:"position"`
}

// recorder is the metadata of a position: which call of Run saved it, and the id of the message that stands there, by which a store
// that was emptied and filled again is known.
type recorder struct {
	Run     string `json:"run"`
	Message string `json:"message,omitempty"`
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
	// Rewound counts how often it began again because the store had gone back, by [RewindRestart].
	Rewound int64
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
		saved, _, err := c.load(ctx, c.config.PositionStream)
		if err != nil {
			return Lag{}, err
		}
		position = saved.position
		if position == 0 {
			position = c.config.From - 1
		}
	}
	var member, size *int
	if g := c.config.Group; g != nil {
		member, size = &g.Member, &g.Size
	}
	var lag Lag
	var seconds float64
	err := c.client.db.QueryRow(ctx, c.client.sql.lag, c.config.Category, position, nullable(c.config.Correlation), member, size).
		Scan(&lag.Messages, &lag.Last, &seconds)
	lag.Age = time.Duration(seconds * float64(time.Second))
	return lag, c.client.explain(err, call{doing: "counting what is new in category", category: c.config.Category})
}

// load reads a position, 0 if there is none, and the version of its stream.
func (c *Consumer) load(ctx context.Context, stream StreamName) (saved place, version int64, err error) {
	last, err := c.client.LastMessage(ctx, stream, "")
	if errors.Is(err, ErrNoMessage) {
		return saved, NoStreamVersion, nil
	}
	if err != nil {
		return saved, 0, err
	}
	version = last.Position
	if last.Type != recordedType {
		last, err = c.client.LastMessage(ctx, stream, recordedType)
		if errors.Is(err, ErrNoMessage) {
			return saved, version, nil
		}
		if err != nil {
			return saved, 0, err
		}
	}
	data, err := Decode[recorded](last)
	if by, err := DecodeMetadata[recorder](last); err == nil { // that of another program may be anything
		saved.id = by.Message
	}
	saved.position = data.Position
	return saved, version, err
}

// resume finds where to begin, and what was handled last.
func (c *Consumer) resume(r *run) (from int64, at place, err error) {
	err = c.persist(r, func(ctx context.Context) error {
		at, r.version, err = c.load(ctx, c.config.PositionStream)
		return err
	})
	if err != nil {
		return 0, at, err
	}
	c.mu.Lock()
	c.stats.Saved = at.position
	c.mu.Unlock()
	if at.position == 0 && c.config.PreviousSize > 0 {
		err = c.persist(r, func(ctx context.Context) error {
			at.position, err = c.leastOf(ctx, c.config.PreviousSize)
			return err
		})
	}
	if at.position == 0 {
		return c.config.From, place{position: c.config.From - 1}, err
	}
	return at.position, at, err
}

// rewind begins a run again at the first message. What it was about to save is of messages that are gone.
func (c *Consumer) rewind(r *run, why error) error {
	c.client.config.Logger.Warn("messagedb: consumer begins again at the first message", "category", c.config.Category,
		"position_stream", c.config.PositionStream, "error", why)
	r.forget()
	err := c.persist(r, func(ctx context.Context) (err error) {
		_, r.version, err = c.load(ctx, c.config.PositionStream)
		return err
	})
	c.mu.Lock()
	c.stats.Rewound++
	c.stats.Position = 0
	c.mu.Unlock()
	return err
}

// forget gives up what is not saved.
func (r *run) forget() { r.unsaved, r.last, r.record = 0, place{}, ProposedMessage{} }

// leastOf is the least position of the members of a group of that size, 0 if one of them has none: what is before it has
// been handled, whoever's it was.
func (c *Consumer) leastOf(ctx context.Context, size int) (least int64, err error) {
	for member := range size {
		saved, _, err := c.load(ctx, c.config.positionStream(&Group{Member: member, Size: size}))
		if err != nil || saved.position == 0 {
			return 0, err
		}
		if least == 0 || saved.position < least {
			least = saved.position
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
	if r.record.ID == "" {
		r.record = ProposedMessage{ID: NewID(), Type: recordedType, Data: recorded{r.last.position}, Metadata: recorder{r.id, r.last.id}}
	}
	for {
		version, err := c.client.write(ctx, c.config.PositionStream, []ProposedMessage{r.record}, r.version, Idempotent())
		if err == nil {
			r.version, r.unsaved, r.record = version, 0, ProposedMessage{}
			c.mu.Lock()
			c.stats.Saved = r.last.position
			c.mu.Unlock()
			return nil
		}
		var conflict *VersionConflictError
		if !errors.As(err, &conflict) {
			return err
		}
		if conflict.Actual < r.version { // a position stream only grows
			r.unsaved = 0
			return &RewoundError{Stream: c.config.PositionStream, Position: r.version, Last: conflict.Actual}
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
