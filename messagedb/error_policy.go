package messagedb

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"
)

// SkippedType is the type of the messages that record what a consumer skipped.
const SkippedType = "Skipped"

// ErrorPolicy decides what a consumer does with a message when its handler fails.
type ErrorPolicy struct {
	// Retries is how many times the handler is called again. Meanwhile no other message is handled. Default: 0.
	Retries int
	// Delay is the time before the first retry; it doubles with each, up to MaxDelay. Default: 100 ms, and 5 s or Delay,
	// whichever is longer.
	Delay, MaxDelay time.Duration
	// Skip continues with the next message after the last retry has failed. The skipped message is recorded in the stream of
	// [Consumer.SkippedStream], as a message of [SkippedType] with a [Skipped] as its data. Default: false, the consumer stops.
	Skip bool
}

// Skipped is the data of a message that records what a consumer skipped.
type Skipped struct {
	ID             string     `json:"id"`
	Stream         StreamName `json:"streamName"`
	Type           string     `json:"type"`
	Position       int64      `json:"position"`
	GlobalPosition int64      `json:"globalPosition"`
	Attempts       int        `json:"attempts"`
	Error          string     `json:"error"`
}

func (p ErrorPolicy) withDefaults() ErrorPolicy {
	if p.Delay == 0 {
		p.Delay = shortestRetry
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = max(longestRetry, p.Delay)
	}
	return p
}

func (p ErrorPolicy) validate() error {
	switch {
	case p.Retries < 0:
		return newInvalidError(FieldErrorPolicy, p.Retries, "the number of retries must not be negative")
	case p.Delay < 0 || p.MaxDelay < p.Delay:
		return newInvalidError(FieldErrorPolicy, p.Delay, "the delay must not be negative, or above the longest one, "+p.MaxDelay.String())
	default:
		return nil
	}
}

// SkippedStream is where the consumer records what it skipped: CATEGORY:skipped, with the id of the position stream.
func (c *Consumer) SkippedStream() StreamName {
	name := withType(c.config.Category, "skipped")
	if id, ok := c.config.PositionStream.ID(); ok {
		name += StreamNameSeparator + id
	}
	return StreamName(name)
}

// recordSkipped records a skipped message. The id is derived, so that a message that is skipped again is not recorded twice.
func (c *Consumer) recordSkipped(r *run, failed *HandlerError) error {
	m := failed.Message
	record := ProposedMessage{
		ID:   DerivedID(c.config.PositionStream.String(), SkippedType, m.ID),
		Type: SkippedType,
		Data: Skipped{
			ID: m.ID, Stream: m.Stream, Type: m.Type, Position: m.Position, GlobalPosition: m.GlobalPosition,
			Attempts: failed.Attempts, Error: strings.ReplaceAll(failed.Err.Error(), "\x00", ""),
		},
	}
	return c.retryUntilStopped(r, func(ctx context.Context) error {
		_, err := c.client.writeMessages(ctx, c.SkippedStream(), []ProposedMessage{record}, AnyVersion)
		if duplicate := new(DuplicateIDError); errors.As(err, &duplicate) {
			return nil
		}
		return err
	})
}

// DerivedID makes the same uuid, of version 8, of the same names, and another one of any others: give it to a message that may be written again, as [Idempotent]
// recognises it by its id. No name may contain a NUL byte, which separates them.
func DerivedID(names ...string) string {
	sum := sha256.Sum256([]byte("messagedb\x00" + strings.Join(names, "\x00")))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return formatID(sum[:16])
}
