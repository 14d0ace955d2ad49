package messagedb

import "context"

// StreamPlace is a stream, and the position to read it from, inclusively.
type StreamPlace struct {
	Stream StreamName
	From   int64
}

// ReadStreams reads one batch of each of several streams in one round trip: batchSize messages of each at most; 0 is [DefaultBatchSize]. They come stream by
// stream, in the order of the places, and those of a stream in the order of positions. Name each stream once. It returns an [*InvalidError] for invalid places or sizes.
func (c *Client) ReadStreams(ctx context.Context, places []StreamPlace, batchSize int) ([]*Message, error) {
	batchSize, err := validPlaces(places, batchSize)
	if err != nil || len(places) == 0 {
		return nil, err
	}
	names, from := make([]string, len(places)), make([]int64, len(places))
	for i, p := range places {
		names[i], from[i] = p.Stream.String(), p.From
	}
	about := call{doing: "reading streams, of which the first is", stream: places[0].Stream, place: "position", from: places[0].From}
	return c.readMessages(ctx, about, Unlimited, c.sql.readStreams, names, from, int64(batchSize))
}

// validPlaces checks places, and the size of the batch of each.
func validPlaces(places []StreamPlace, batchSize int) (int, error) {
	if batchSize == Unlimited {
		return 0, newInvalidError(FieldBatchSize, batchSize, "must be positive, or 0 for the default of 1000")
	}
	seen := make(map[StreamName]bool, len(places))
	for _, p := range places {
		o, err := StreamOptions{From: p.From, BatchSize: batchSize}.prepareOptions(p.Stream)
		if err != nil {
			return 0, err
		}
		if seen[p.Stream] {
			return 0, newInvalidError(FieldStream, p.Stream, "must be named once")
		}
		seen[p.Stream], batchSize = true, o.BatchSize
	}
	return batchSize, nil
}

// ReadStreams reads one batch of each of several streams: see [Client.ReadStreams].
func (s *Memory) ReadStreams(ctx context.Context, places []StreamPlace, batchSize int) ([]*Message, error) {
	batchSize, err := validPlaces(places, batchSize)
	if err != nil {
		return nil, err
	}
	var all []*Message
	for _, p := range places {
		some, err := s.ReadStream(ctx, p.Stream, StreamOptions{From: p.From, BatchSize: batchSize})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
