package messagedb

import (
	"context"
	"fmt"
	"time"
)

// rewindInterval is how often a feed that finds nothing new compares its place with the store, however fast it polls.
const rewindInterval = time.Second

// RewindPolicy decides what a subscription or a consumer does when the store has gone back behind its position: it was emptied, or
// restored from a backup, so that new messages take positions which were handled before. Reading on would pass over them.
type RewindPolicy string

// The policies.
const (
	// RewindStop ends it with a [*RewoundError].
	RewindStop RewindPolicy = "stop"
	// RewindRestart logs the [*RewoundError] as a warning, and begins again at the first message: handlers get again what is still there.
	RewindRestart RewindPolicy = "restart"
)

func (p RewindPolicy) validate() error {
	if p != RewindStop && p != RewindRestart {
		return newInvalidError(FieldRewind, p, "must be RewindStop or RewindRestart, or empty for RewindStop")
	}
	return nil
}

// RewoundError is a position that the store does not have any more, or never had: the store was emptied, or restored from a backup,
// or the position is of another one. Messages written since then may stand before the position, and were not handled.
type RewoundError struct {
	// One of Stream and Category names the source that was read; the other is empty.
	Stream   StreamName
	Category string
	// Position is the last one that was handled, or the one before the one to begin at; a global position where Category is set.
	Position int64
	// Last is the last position that the store has given out, -1 for an empty stream, and 0 for an empty store.
	Last int64
	// Expected is the id of the message that was handled at Position, and Found that of the message that stands there now. Both are empty
	// where Position is ahead of Last.
	Expected, Found string
}

func (e *RewoundError) Error() string {
	what := fmt.Sprintf("stream %q at position %d", e.Stream, e.Position)
	if e.Category != "" {
		what = fmt.Sprintf("category %q at global position %d", e.Category, e.Position)
	}
	why := fmt.Sprintf("the store ends at %d", e.Last)
	if e.Found != "" {
		why = fmt.Sprintf("message %s was handled there, and message %s stands there now", e.Expected, e.Found)
	}
	return fmt.Sprintf("messagedb: %s: %s: the store was emptied or restored from a backup, or the position is of another store", what, why)
}

// place is the place of a feed: behind the last message that was handled. ID is empty where only the position is known.
type place struct {
	position int64
	id       string
}

// standing is the content of the store at a place: the id of the message there, nil if there is none, and the last position that was given
// out, nil where that cannot be known, as on a standby, which may lag behind the server that was read before.
type standing struct {
	id   *string
	last *int64
}

// comparePlace finds a place that is not of this store. A message that is not there any more, below the last position, was deleted, which
// takes nothing from a reader.
func (s standing) comparePlace(at place) (rewound *RewoundError) {
	switch {
	case s.id != nil && at.id != "" && *s.id != at.id:
		rewound = &RewoundError{Position: at.position, Expected: at.id, Found: *s.id}
	case s.id == nil && s.last != nil && *s.last < at.position:
		rewound = &RewoundError{Position: at.position}
	default:
		return nil
	}
	if s.last != nil {
		rewound.Last = *s.last
	}
	return rewound
}

// checkStream compares a place with a stream.
func (c *Client) checkStream(ctx context.Context, stream StreamName, at place) error {
	var found standing
	about := call{doing: "comparing the position with stream", stream: stream, place: "position", from: at.position}
	err := c.scanRow(ctx, []any{&found.id, &found.last}, c.sql.streamStanding, stream.String(), at.position)
	if err != nil {
		return c.explainError(err, about)
	}
	if rewound := found.comparePlace(at); rewound != nil {
		rewound.Stream = stream
		return rewound
	}
	return nil
}

// CheckPosition compares a global position that a reader of a category has saved with the store, as subscriptions and consumers do before they
// go on: the error is a [*RewoundError] where the store has gone back behind it. messageID is the id of the message that was handled at the
// position, empty if it is not known. That the newest messages were deleted is no error: the store has not given out their positions again.
func (c *Client) CheckPosition(ctx context.Context, category string, position int64, messageID string) error {
	if err := c.checkUsable(); err != nil {
		return err
	}
	if err := validCategory(FieldCategory, category); err != nil {
		return err
	}
	if position < 0 {
		return newInvalidError(FieldPosition, position, "must not be negative")
	}
	at := place{position: position}
	if messageID != "" {
		id, err := canonicalID(messageID)
		if err != nil {
			return err
		}
		at.id = id
	}
	return c.checkCategory(ctx, category, at)
}

// checkCategory compares a global position with the store.
func (c *Client) checkCategory(ctx context.Context, category string, at place) error {
	var found standing
	about := call{doing: "comparing the position with category", category: category, place: "global position", from: at.position}
	err := c.scanRow(ctx, []any{&found.id, &found.last}, c.sql.categoryStanding, at.position)
	if err != nil {
		return c.explainError(err, about)
	}
	if rewound := found.comparePlace(at); rewound != nil {
		rewound.Category = category
		return rewound
	}
	return nil
}

// streamStanding reads what a stream has at a position.
func (s statementBuilder) streamStanding() string {
	return fmt.Sprintf(`SELECT CASE WHEN %[2]s THEN (SELECT id::text FROM %[1]s.messages WHERE stream_name = $1 AND position = $2) END,
	CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN coalesce((SELECT pg_catalog.max(position) FROM %[1]s.messages WHERE stream_name = $1), -1) END`, s.schema, s.unfiltered)
}

// categoryStanding reads what the store has at a global position. The end is that of the sequence: the last messages may have been
// deleted. A role without rights on it cannot see the end, and compares ids alone.
func (s statementBuilder) categoryStanding() string {
	return fmt.Sprintf(`SELECT CASE WHEN %[3]s THEN (SELECT id::text FROM %[1]s.messages WHERE global_position = $1) END,
	CASE WHEN NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.has_sequence_privilege(places.name, 'SELECT, USAGE')
		THEN coalesce(pg_catalog.pg_sequence_last_value(places.name::pg_catalog.regclass), 0) END
FROM (SELECT pg_catalog.pg_get_serial_sequence(%[2]s, 'global_position') AS name) places`, s.schema, quoteLiteral(s.schema+".messages"), s.unfiltered)
}
