package messagedb

import (
	"context"
	"errors"
	"slices"
)

// EntityResult is the result of [Entity.GetMany] for one id: the values that [Entity.Get] returns.
type EntityResult[T any] struct {
	Value   T
	Version int64
	// Err is an [*InvalidError] for an id that cannot be, or a [*HandlerError] for a message that cannot be folded.
	Err error
}

const (
	// streamsAtOnce is how many streams one round trip of GetMany reads, and messagesOfEach how many messages of each. Longer ones are read on one by one.
	streamsAtOnce  = 200
	messagesOfEach = 50
)

// GetMany reads the values of several ids, as [Entity.Get] does, in few round trips. Name each id once. The results are in the order of the ids. The error is
// of the store, or an [*InvalidError]; what is wrong with one stream is in its result.
func (e *Entity[T]) GetMany(ctx context.Context, ids []string) ([]EntityResult[T], error) {
	if err := e.checkUsable(); err != nil {
		return nil, err
	}
	results := make([]EntityResult[T], 0, len(ids))
	for some := range slices.Chunk(ids, streamsAtOnce) {
		part, err := e.getSome(ctx, some)
		if err != nil {
			return nil, err
		}
		results = append(results, part...)
	}
	return results, nil
}

// getSome reads as many as one round trip takes.
func (e *Entity[T]) getSome(ctx context.Context, ids []string) ([]EntityResult[T], error) {
	results := make([]EntityResult[T], len(ids))
	streams, known := make([]StreamName, len(ids)), make([]folded[T], len(ids))
	var places []StreamPlace
	for i, id := range ids {
		stream, err := e.Stream(id)
		if err != nil {
			results[i].Err = err
			continue
		}
		if known[i], err = e.loadKnown(ctx, id, stream); err != nil {
			return nil, err
		}
		streams[i] = stream
		places = append(places, StreamPlace{Stream: stream, From: known[i].findBegin()})
	}
	size := min(messagesOfEach, e.config.BatchSize)
	messages, err := e.store.ReadStreams(ctx, places, size)
	if err != nil {
		return nil, err
	}
	read := make(map[StreamName][]*Message, len(places))
	for _, m := range messages {
		read[m.Stream] = append(read[m.Stream], m)
	}
	for i, stream := range streams {
		if results[i].Err != nil {
			continue
		}
		now, err := e.foldRead(ctx, stream, known[i], read[stream], size)
		now, err = e.unlessReplaced(ctx, stream, known[i], now, err)
		switch {
		case errors.As(err, new(*HandlerError)):
			results[i].Err = err
		case err != nil:
			return nil, err
		default:
			results[i].Value, results[i].Version = e.storeRead(ctx, ids[i], stream, now, known[i])
		}
	}
	return results, nil
}
