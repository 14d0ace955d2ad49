package messagedb

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// recordedType is the type of the messages that hold positions, as in Eventide.
const recordedType = "Recorded"

// positionType is the type of the categories that positions are saved in.
const positionType = "position"

type recorded struct {
	Position int64 `json:"position"`
}

// recorder is the metadata of a position: which call of Run or which cursor saved it, the id of the message that stands there, by which a store
// that was emptied and filled again is known, and whether the position stream is that cursor's: see [CategoryCursor].
type recorder struct {
	Run     string `json:"run"`
	Message string `json:"message,omitempty"`
	Claimed bool   `json:"claimed,omitempty"`
}

// savedPosition is the content of a position stream: a position, 0 if there is none, the version of the stream, and whether a cursor has claimed it.
type savedPosition struct {
	place
	version int64
	claimed bool
}

// ConsumerStats are the counts of a consumer since it was made.
type ConsumerStats struct {
	// Position is the global position of the last message that was handled, 0 before the first.
	Position int64
	// Saved is the position that a restart would begin at, 0 if there is none.
	Saved int64
	// Handled counts messages that were handled without error, Ignored those of types without one, Skipped those that the error
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

// Lag counts the messages that a consumer has not handled.
type Lag struct {
	// Messages counts what it has not handled.
	Messages int64
	// Last is the global position of the last message that it has to handle, 0 if there is none.
	Last int64
	// Age is how long the oldest of them has been waiting, by the server's clock, since the beginning of the transaction that
	// wrote it.
	Age time.Duration
}

// Lag asks the database for the messages that the consumer has not handled, of its group member and correlation if it has
// these. It ignores the condition. The longer the lag, the more the call costs. For a consumer that has never run, it counts
// from the saved position.
func (c *Consumer) Lag(ctx context.Context) (Lag, error) {
	position := c.Stats().Position
	if position == 0 {
		var err error
		if position, err = c.loadSaved(ctx); err != nil {
			return Lag{}, err
		}
		if position == 0 {
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
	err = c.scanRow(ctx, []any{&lag.Messages, &lag.Last, &seconds}, c.sql.lag, category, position, nullIfEmpty(correlation), member, size)
	lag.Age = time.Duration(seconds * float64(time.Second))
	return lag, c.explainError(err, call{doing: "counting what is new in category", category: category})
}

// scanRow reads the only row of a statement.
func (c *Client) scanRow(ctx context.Context, into []any, sql string, args ...any) error {
	rows, err := c.db.Query(ctx, sql, args...)
	if err == nil {
		_, err = pgx.ForEachRow(rows, into, func() error { return nil })
	}
	return err
}

// positionKeeper keeps the position of a consumer elsewhere than in the store: a [Projector] does.
type positionKeeper interface {
	// loadPosition is the global position of the last message that was handled, 0 if there is none. It may be called beside a run.
	loadPosition(ctx context.Context) (int64, error)
	// resumePosition is the place behind that message, for a run that begins: with its id, so that the run sees whether the store still has it.
	resumePosition(ctx context.Context) (place, error)
	// savePosition saves the place behind a message, unless handling it has saved it already.
	savePosition(ctx context.Context, at place) error
}

// loadSaved reads the consumer's own position, wherever it is kept.
func (c *Consumer) loadSaved(ctx context.Context) (position int64, err error) {
	if c.keeper != nil {
		return c.keeper.loadPosition(ctx)
	}
	saved, err := c.readPositionStream(ctx, c.config.PositionStream)
	return saved.position, err
}

// readPositionStream reads the position of a position stream.
func (c *Consumer) readPositionStream(ctx context.Context, stream StreamName) (saved savedPosition, err error) {
	saved.version = NoStreamVersion
	last, err := c.client.LastMessage(ctx, stream, "")
	if err == nil {
		saved.version = last.Position
		if last.Type != recordedType {
			last, err = c.client.LastMessage(ctx, stream, recordedType)
		}
	}
	if errors.Is(err, ErrNoMessage) {
		return saved, nil
	}
	if err != nil {
		return saved, err
	}
	version := saved.version
	saved, err = savedIn(last)
	saved.version = version
	return saved, err
}

// savedIn reads the position in a message of [recordedType].
func savedIn(m *Message) (saved savedPosition, err error) {
	data, err := Decode[recorded](m)
	if by, err := DecodeMetadata[recorder](m); err == nil { // that of another program may be anything
		saved.id, saved.claimed = by.Message, by.Claimed
	}
	saved.position, saved.version = data.Position, m.Position
	return saved, err
}

// findBeginning returns the place to begin behind: the saved position, or the least one of the group's previous members, or, where isNew, the position
// before From.
func (c *Consumer) findBeginning(ctx context.Context, saved place) (at place, isNew bool, err error) {
	if saved.position == 0 && c.config.PreviousSize > 0 {
		saved.position, err = c.leastOf(ctx, c.config.PreviousSize)
	}
	if saved.position == 0 {
		return place{position: c.config.From - 1}, true, err
	}
	return saved, false, err
}

// resumeRun finds where to begin, and what was handled last.
func (c *Consumer) resumeRun(r *run) (from int64, at place, err error) {
	err = c.retryUntilStopped(r, func(ctx context.Context) error {
		if c.keeper != nil {
			at, err = c.keeper.resumePosition(ctx)
			return err
		}
		saved, err := c.readPositionStream(ctx, c.config.PositionStream)
		at, r.version = saved.place, saved.version
		return err
	})
	if err != nil {
		return 0, at, err
	}
	c.mu.Lock()
	c.stats.Saved = at.position
	c.mu.Unlock()
	if c.keeper != nil && at.position > 0 {
		return at.position + 1, at, nil // it was saved with what was made of it
	}
	saved, isNew := at, false
	err = c.retryUntilStopped(r, func(ctx context.Context) error {
		at, isNew, err = c.findBeginning(ctx, saved)
		return err
	})
	if isNew {
		return c.config.From, at, err
	}
	return at.position, at, err
}

// rewindRun begins a run again at the first message. It drops the unsaved position, because that message is gone.
func (c *Consumer) rewindRun(r *run, why error) error {
	c.warnOfRewind(why)
	r.forgetUnsaved()
	err := c.retryUntilStopped(r, func(ctx context.Context) error {
		saved, err := c.readPositionStream(ctx, c.config.PositionStream)
		r.version = saved.version
		return err
	})
	c.mu.Lock()
	c.stats.Rewound++
	c.stats.Position = 0
	c.mu.Unlock()
	return err
}

func (c *Consumer) warnOfRewind(why error) {
	c.client.config.Logger.Warn("messagedb: consumer begins again at the first message", "category", c.config.Category,
		"position_stream", c.config.PositionStream, "error", why)
}

// forgetUnsaved drops the position that is not saved.
func (r *run) forgetUnsaved() { r.unsaved, r.last, r.record = 0, place{}, ProposedMessage{} }

// leastOf returns the least position of the members of a group of that size, 0 if one of them has none. All messages before
// it have been handled.
func (c *Consumer) leastOf(ctx context.Context, size int) (least int64, err error) {
	for member := range size {
		saved, err := c.readPositionStream(ctx, c.config.positionStream(&Group{Member: member, Size: size}))
		if err != nil || saved.position == 0 {
			return 0, err
		}
		if least == 0 || saved.position < least {
			least = saved.position
		}
	}
	return least, nil
}

// saveUnsaved writes the position if it has changed. It expects the version that it wrote last, so that two consumers of one
// position stream notice each other. It may be repeated, because it recognises its own write by the id. No message is handled
// until it has succeeded, so a repetition saves the same position.
func (c *Consumer) saveUnsaved(ctx context.Context, r *run) error {
	if r.unsaved == 0 || r.dead.Load() {
		return nil
	}
	if c.keeper != nil {
		return c.saveKept(ctx, r)
	}
	if r.record.ID == "" {
		r.record = ProposedMessage{ID: NewID(), Type: recordedType, Data: recorded{r.last.position}, Metadata: recorder{Run: r.id, Message: r.last.id}}
	}
	for {
		version, err := c.client.writeMessages(ctx, c.config.PositionStream, []ProposedMessage{r.record}, r.version, Idempotent())
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
		adopted, loadErr := c.adoptVersion(ctx, r)
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

// saveKept is saveUnsaved for a position that a positionKeeper keeps.
func (c *Consumer) saveKept(ctx context.Context, r *run) error {
	if err := c.keeper.savePosition(ctx, r.last); err != nil {
		return err
	}
	r.unsaved = 0
	c.mu.Lock()
	c.stats.Saved = r.last.position
	c.mu.Unlock()
	return nil
}

// adoptVersion takes over the position stream from another run that wrote to it meanwhile, once for each run: the server may
// have carried out the last save of a dead process after its successor had read the position. A run that writes twice is alive.
func (c *Consumer) adoptVersion(ctx context.Context, r *run) (bool, error) {
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
