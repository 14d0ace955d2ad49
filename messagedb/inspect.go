package messagedb

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// MaxStreamsListed is the most streams that one call of [Client.Streams] returns.
const MaxStreamsListed = 1000

// StreamInfo is a stream as [Client.Streams] finds it.
type StreamInfo struct {
	Stream StreamName
	// Version is the position of its last message, and LastTime that message's time, in UTC.
	Version  int64
	LastTime time.Time
	// Messages counts what is there: fewer than Version+1 where the beginning was archived.
	Messages int64
	// First is the global position of its first message. The next page begins after that of the last stream.
	First int64
}

// Streams lists the streams of a category in the order of their first messages, a page at a time. A page has the streams that begin after the
// global position after: limit of them at most, from 1 to [MaxStreamsListed]. A page reads the category's messages up to the last stream that it
// has, so all pages together read it once.
func (c *Client) Streams(ctx context.Context, category string, after int64, limit int) ([]StreamInfo, error) {
	if err := c.checkUsable(); err != nil {
		return nil, err
	}
	if err := validCategory(FieldCategory, category); err != nil {
		return nil, err
	}
	if after < 0 {
		return nil, newInvalidError(FieldPosition, after, "must not be negative")
	}
	if limit < 1 || limit > MaxStreamsListed {
		return nil, newInvalidError(FieldLimit, limit, "must be from 1 to "+strconv.Itoa(MaxStreamsListed))
	}
	about := call{doing: "listing the streams of category", category: category, place: "global position", from: after}
	if err := c.refuseFiltered(ctx, about); err != nil {
		return nil, err
	}
	rows, err := c.db.Query(ctx, c.sql.streams, category, after, limit)
	if err != nil {
		return nil, c.explainError(err, about)
	}
	streams, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s StreamInfo, err error) {
		err = row.Scan((*string)(&s.Stream), &s.First, &s.Version, &s.LastTime, &s.Messages)
		s.LastTime = asUTC(s.LastTime)
		return s, err
	})
	return streams, c.explainError(err, about)
}

// Categories lists all categories of the store, in the order of the server's collation. It costs a look into an index for each.
func (c *Client) Categories(ctx context.Context) ([]string, error) {
	if err := c.checkUsable(); err != nil {
		return nil, err
	}
	about := call{doing: "listing categories"}
	if err := c.refuseFiltered(ctx, about); err != nil {
		return nil, err
	}
	rows, err := c.db.Query(ctx, c.sql.categories)
	if err != nil {
		return nil, c.explainError(err, about)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, c.explainError(err, about)
}

// LastCategoryMessages reads the last messages of a category, of one correlation if that is not empty, n of them at most, from 1 to
// [DefaultBatchSize], in the order of global positions.
func (c *Client) LastCategoryMessages(ctx context.Context, category string, n int, correlation string) ([]*Message, error) {
	if n < 1 || n > DefaultBatchSize {
		return nil, newInvalidError(FieldLimit, n, "must be from 1 to "+strconv.Itoa(DefaultBatchSize))
	}
	o, err := CategoryOptions{Correlation: correlation}.prepareOptions(category)
	if err != nil {
		return nil, err
	}
	about := call{doing: "reading the end of category", category: category}
	if err := c.checkUsable(); err != nil {
		return nil, err
	}
	if err := c.refuseFiltered(ctx, about); err != nil {
		return nil, err
	}
	messages, err := c.readMessages(ctx, about, n, c.sql.categoryTail, category, nullIfEmpty(o.Correlation), n)
	slices.Reverse(messages)
	return messages, err
}

// ConsumerPosition is the position that a consumer has saved in the store, and what it has before it.
type ConsumerPosition struct {
	// Stream is where the position is saved, and Category what the consumer reads.
	Stream   StreamName
	Category string
	// Identifier and Group are those of the consumer, as the name of the stream has them.
	Identifier string
	Group      *Group
	// Position is the global position of the last message that was handled when it was saved, at SavedAt, in UTC.
	Position int64
	SavedAt  time.Time
	// Rewound is why the consumer cannot go on, by what a store that went back has at the position: see [Client.CheckPosition]. It is nil
	// where it can.
	Rewound *RewoundError
	// Lag counts the messages after the position, of the group member. It ignores the consumer's correlation and condition, which the store does not know.
	Lag Lag
}

// ConsumerPositions finds the positions that consumers of a category have saved, or those of all categories if it is empty, by the names of
// position streams that are the default. It reads all positions that were ever saved, and counts what is behind the last ones.
func (c *Client) ConsumerPositions(ctx context.Context, category string) ([]ConsumerPosition, error) {
	positionCategories, err := c.positionCategories(ctx, category)
	if err != nil {
		return nil, err
	}
	var all []ConsumerPosition
	for _, in := range positionCategories {
		for after := int64(0); ; {
			streams, err := c.Streams(ctx, in, after, MaxStreamsListed)
			if err != nil {
				return nil, err
			}
			for _, s := range streams {
				after = s.First
				found, err := c.consumerPosition(ctx, s.Stream)
				if errors.Is(err, ErrNoMessage) {
					continue // not a position stream of a consumer
				}
				if err != nil {
					return nil, err
				}
				all = append(all, found)
			}
			if len(streams) < MaxStreamsListed {
				break
			}
		}
	}
	return all, nil
}

func (c *Client) positionCategories(ctx context.Context, category string) ([]string, error) {
	if category != "" {
		if err := validCategory(FieldCategory, category); err != nil {
			return nil, err
		}
		return []string{withType(category, positionType)}, nil
	}
	categories, err := c.Categories(ctx)
	return slices.DeleteFunc(categories, func(name string) bool { return consumedCategory(name) == "" }), err
}

// consumedCategory returns the category that a category of positions belongs to; empty if the name is not that of such a category.
func consumedCategory(positions string) string {
	for _, separator := range []string{TypeSeparator, CompoundSeparator} {
		if category, ok := strings.CutSuffix(positions, separator+positionType); ok && withType(category, positionType) == positions {
			return category
		}
	}
	return ""
}

func (c *Client) consumerPosition(ctx context.Context, stream StreamName) (p ConsumerPosition, err error) {
	last, err := c.LastMessage(ctx, stream, recordedType)
	if err != nil {
		return p, err
	}
	saved, err := savedIn(last)
	if err != nil {
		return p, err
	}
	p = ConsumerPosition{Stream: stream, Category: consumedCategory(stream.Category()), Position: saved.position, SavedAt: last.Time}
	p.Identifier, p.Group = identifierOf(stream)
	// Compared after it was read: the store goes on meanwhile.
	if err := c.checkCategory(ctx, p.Category, saved.place); err != nil && !errors.As(err, &p.Rewound) {
		return p, err
	}
	p.Lag, err = c.countLag(ctx, p.Category, p.Position, "", p.Group)
	return p, err
}

// identifierOf reads the id of a position stream: IDENTIFIER, or IDENTIFIER+MEMBER+SIZE.
func identifierOf(stream StreamName) (identifier string, group *Group) {
	id, _ := stream.ID()
	parts := strings.Split(id, CompoundSeparator)
	if n := len(parts); n > 2 {
		member, memberErr := strconv.Atoi(parts[n-2])
		size, sizeErr := strconv.Atoi(parts[n-1])
		if g := (Group{Member: member, Size: size}); memberErr == nil && sizeErr == nil && g.validate() == nil {
			return strings.Join(parts[:n-2], CompoundSeparator), &g
		}
	}
	return id, nil
}

// CategoryLag counts what is behind a global position in a category, of a group member if there is one.
func (c *Client) CategoryLag(ctx context.Context, category string, position int64, group *Group) (Lag, error) {
	if err := c.checkUsable(); err != nil {
		return Lag{}, err
	}
	o, err := CategoryOptions{Group: group}.prepareOptions(category)
	if err != nil {
		return Lag{}, err
	}
	return c.countLag(ctx, category, position, "", o.Group)
}
