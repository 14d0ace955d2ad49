package messagedb

import "context"

// Store has the methods that [Client] and [Memory] share: enough to write streams, to read them, and to fold an [Entity]. Code that takes a
// Store can be tested without a server. One conformance suite runs against both. It may gain methods; it is for calling, not for implementing.
type Store interface {
	// Write appends messages to a stream: see [Client.Write].
	Write(ctx context.Context, stream StreamName, messages []ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error)
	// WriteMessage appends one message to a stream: see [Client.Write].
	WriteMessage(ctx context.Context, stream StreamName, message ProposedMessage, expected int64, opts ...WriteOption) (position int64, err error)
	// ReadStream reads one batch of a stream: see [Client.ReadStream].
	ReadStream(ctx context.Context, stream StreamName, options StreamOptions) ([]*Message, error)
	// ReadStreams reads one batch of each of several streams: see [Client.ReadStreams].
	ReadStreams(ctx context.Context, places []StreamPlace, batchSize int) ([]*Message, error)
	// ReadCategory reads one batch of a category: see [Client.ReadCategory].
	ReadCategory(ctx context.Context, category string, options CategoryOptions) ([]*Message, error)
	// LastMessage reads the last message of a stream: see [Client.LastMessage].
	LastMessage(ctx context.Context, stream StreamName, messageType string) (*Message, error)
	// StreamVersion is the position of the last message of a stream: see [Client.StreamVersion].
	StreamVersion(ctx context.Context, stream StreamName) (int64, error)
}

var (
	_ Store = (*Client)(nil)
	_ Store = (*Memory)(nil)
)
