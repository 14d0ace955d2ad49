package messagedb

import (
	"context"
	"iter"
)

// StreamMessages iterates over a stream, from options.From to the end that it has when the iterator gets there. It holds
// one batch in memory, and no connection while the loop's body runs. An error is the last element, with a nil message: bad
// options as an [*InvalidError], [Unlimited] among them.
//
//	for message, err := range client.StreamMessages(ctx, "account-123", messagedb.StreamOptions{}) {
//		if err != nil {
//			return err
//		}
//		…
//	}
func (c *Client) StreamMessages(ctx context.Context, stream StreamName, options StreamOptions) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		o, err := options.prepareOptions(stream)
		if err == nil {
			err = checkBounded(o.BatchSize)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		yieldPages(yield, o.BatchSize, func(last *Message) ([]*Message, error) {
			if last != nil {
				o.From = last.Position + 1
			}
			return c.readStream(ctx, stream, o)
		})
	}
}

// CategoryMessages iterates over a category, from options.From to the end that it has when the iterator gets there. It
// holds one batch in memory, and no connection while the loop's body runs. An error is the last element, with a nil message:
// bad options as an [*InvalidError], [Unlimited] among them.
func (c *Client) CategoryMessages(ctx context.Context, category string, options CategoryOptions) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		o, err := options.prepareOptions(category)
		if err == nil {
			err = checkBounded(o.BatchSize)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		yieldPages(yield, o.BatchSize, func(last *Message) ([]*Message, error) {
			if last != nil {
				o.From = last.GlobalPosition + 1
			}
			return c.readCategory(ctx, category, o)
		})
	}
}

func checkBounded(batchSize int) error {
	if batchSize == Unlimited {
		return newInvalidError(FieldBatchSize, batchSize, "must not be unlimited here: an iterator holds one batch in memory")
	}
	return nil
}

// yieldPages reads batches until one is not full.
func yieldPages(yield func(*Message, error) bool, batchSize int, read func(last *Message) ([]*Message, error)) {
	var last *Message
	for {
		messages, err := read(last)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, m := range messages {
			if !yield(m, nil) {
				return
			}
			last = m
		}
		if len(messages) < batchSize {
			return
		}
	}
}
