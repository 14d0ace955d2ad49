package messagedb

import (
	"context"
	"strconv"
	"time"
)

// StreamOptions select the messages to read from a stream. The zero value reads from its beginning.
type StreamOptions struct {
	// From is the position to begin at, inclusively. Default: 0, the first message.
	From int64
	// BatchSize is the most messages that one round trip reads. Default: [DefaultBatchSize]. [Unlimited] reads all.
	BatchSize int
	// Condition is a condition in SQL on the columns of the table messages, which the server's setting
	// message_store.sql_condition must allow. It is raw SQL: never make it from input. Default: none.
	Condition string
}

// Group is one member of a consumer group. The streams of a category are divided among the members by the hash of their
// cardinal ids. Streams without an id reach no member.
type Group struct {
	// Member is the number of this member, from 0 to Size-1.
	Member int
	// Size is the number of members, from 1 to [MaxGroupSize]. For a reader with 0, and Member 0, there is no group.
	Size int
}

// CategoryOptions select the messages to read from a category. The zero value reads all of it, from its beginning.
type CategoryOptions struct {
	// From is the global position to begin at, inclusively. Default: 0; the first message has 1.
	From int64
	// BatchSize is the most messages that one round trip reads. Default: [DefaultBatchSize]. [Unlimited] reads all.
	BatchSize int
	// Correlation reads only messages that name a stream of this category as correlationStreamName in their metadata.
	// Default: all messages.
	Correlation string
	// Group reads only the streams of one member of a consumer group. Default: all streams, as with a Group of size 0.
	Group *Group
	// Condition is a condition in SQL on the columns of the table messages, which the server's setting
	// message_store.sql_condition must allow. It is raw SQL: never make it from input. Default: none.
	Condition string
}

func (o StreamOptions) prepareOptions(stream StreamName) (StreamOptions, error) {
	if err := validName(FieldStream, stream.String()); err != nil {
		return o, err
	}
	if stream.IsCategory() {
		return o, newInvalidError(FieldStreamID, stream, `a stream name must have an id after its first "-"`)
	}
	var err error
	o.BatchSize, err = validReading(o.From, o.BatchSize, o.Condition)
	return o, err
}

func (o CategoryOptions) prepareOptions(category string) (CategoryOptions, error) {
	if err := validCategory(FieldCategory, category); err != nil {
		return o, err
	}
	if o.Correlation != "" {
		if err := validCategory(FieldCorrelation, o.Correlation); err != nil {
			return o, err
		}
	}
	o.Group = o.Group.orNone()
	if o.Group != nil {
		if err := o.Group.validate(); err != nil {
			return o, err
		}
	}
	var err error
	o.BatchSize, err = validReading(o.From, o.BatchSize, o.Condition)
	return o, err
}

// orNone returns nil for a group with size 0 and member 0, because gomdb's options use that for no group. With another member, the size was
// forgotten.
func (g *Group) orNone() *Group {
	if g == nil || *g == (Group{}) {
		return nil
	}
	return g
}

func (g Group) validate() error {
	switch {
	case g.Size < 1 || g.Size > MaxGroupSize:
		return newInvalidError(FieldGroupSize, g.Size, "must be from 1 to "+strconv.Itoa(MaxGroupSize))
	case g.Member < 0 || g.Member >= g.Size:
		return newInvalidError(FieldGroupMember, g.Member, "must be from 0 to the group's size less 1, "+strconv.Itoa(g.Size-1))
	default:
		return nil
	}
}

func validReading(from int64, batchSize int, condition string) (int, error) {
	switch {
	case from < 0:
		return 0, newInvalidError(FieldPosition, from, "must not be negative")
	case batchSize < Unlimited:
		return 0, newInvalidError(FieldBatchSize, batchSize, "must be positive, -1 for all messages, or 0 for the default of 1000")
	case batchSize == 0:
		batchSize = DefaultBatchSize
	}
	return batchSize, validText(FieldCondition, condition)
}

// ReadStream reads one batch of a stream, in the order of positions. It returns no error if there are none, an [*InvalidError] for
// invalid options, and a [*ConditionDisabledError] for a condition that the server does not allow.
func (c *Client) ReadStream(ctx context.Context, stream StreamName, options StreamOptions) ([]*Message, error) {
	o, err := options.prepareOptions(stream)
	if err != nil {
		return nil, err
	}
	return c.readStream(ctx, stream, o)
}

func (c *Client) readStream(ctx context.Context, stream StreamName, o StreamOptions) ([]*Message, error) {
	about := call{doing: "reading stream", stream: stream, place: "position", from: o.From, condition: o.Condition}
	return c.readMessages(ctx, about, o.BatchSize, c.sql.readStream, stream.String(), o.From, int64(o.BatchSize), nullIfEmpty(o.Condition))
}

// ReadCategory reads one batch of a category, in the order of global positions. It returns no error if there are none, an
// [*InvalidError] for invalid options, and a [*ConditionDisabledError] for a condition that the server does not allow.
func (c *Client) ReadCategory(ctx context.Context, category string, options CategoryOptions) ([]*Message, error) {
	o, err := options.prepareOptions(category)
	if err != nil {
		return nil, err
	}
	return c.readCategory(ctx, category, o)
}

func (c *Client) readCategory(ctx context.Context, category string, o CategoryOptions) ([]*Message, error) {
	about := call{doing: "reading category", category: category, place: "global position", from: o.From, condition: o.Condition}
	var member, size *int64
	if o.Group != nil {
		m, s := int64(o.Group.Member), int64(o.Group.Size)
		member, size = &m, &s
	}
	return c.readMessages(ctx, about, o.BatchSize, c.sql.readCategory, category, o.From, int64(o.BatchSize), nullIfEmpty(o.Correlation), member, size, nullIfEmpty(o.Condition))
}

// LastMessage reads the last message of a stream, or the last of one type; an empty messageType is any. The error is
// [ErrNoMessage] where there is none.
func (c *Client) LastMessage(ctx context.Context, stream StreamName, messageType string) (*Message, error) {
	if err := validName(FieldStream, stream.String()); err != nil {
		return nil, err
	}
	if err := validText(FieldType, messageType); err != nil {
		return nil, err
	}
	about := call{doing: "reading the last message of stream", stream: stream}
	messages, err := c.readMessages(ctx, about, 1, c.sql.last, stream.String(), nullIfEmpty(messageType))
	if err != nil {
		return nil, err
	}
	if len(messages) == 0 {
		return nil, ErrNoMessage
	}
	return messages[0], nil
}

// readMessages runs a statement that returns messages, and a last row that is not a message.
func (c *Client) readMessages(ctx context.Context, about call, batchSize int, sql string, args ...any) ([]*Message, error) {
	if err := c.checkUsable(); err != nil {
		return nil, err
	}
	rows, err := c.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, c.explainError(err, about)
	}
	defer rows.Close()
	var messages []*Message
	// Messages are allocated together, in blocks that grow up to a batch.
	var block []Message
	for rows.Next() {
		if rows.RawValues()[streamColumn] == nil {
			continue // the row that puts the search path back
		}
		if len(block) == 0 {
			block = make([]Message, blockSize(len(messages), batchSize))
		}
		m := &block[0]
		if err := rows.Scan(&m.ID, (*string)(&m.Stream), &m.Type, &m.Position, &m.GlobalPosition, (*[]byte)(&m.Data), (*[]byte)(&m.Metadata), &m.Time); err != nil {
			return nil, c.explainError(err, about)
		}
		m.Time = asUTC(m.Time)
		messages = append(messages, m)
		block = block[1:]
	}
	if err := rows.Err(); err != nil {
		return nil, c.explainError(err, about)
	}
	return messages, nil
}

// streamColumn is where statementBuilder.callForRows has the name of the stream.
const streamColumn = 1

// blockSize is how many messages to make room for when so many have been read: as many again, of those that can still come.
func blockSize(read, batchSize int) int {
	size := min(max(16, read), DefaultBatchSize)
	if batchSize != Unlimited {
		size = min(size, max(batchSize-read, 1))
	}
	return size
}

// asUTC interprets a timestamp without zone as UTC, because the store writes UTC.
func asUTC(t time.Time) time.Time {
	if t.Location() == time.UTC {
		return t
	}
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// nullIfEmpty returns nil, for NULL, if the string is empty.
func nullIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
