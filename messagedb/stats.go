package messagedb

import (
	"errors"
	"sync/atomic"
)

// ClientStats count what a client has written since it was made. The clients that [Client.InTx] makes of it count here too, when
// they write: a transaction that is rolled back afterwards has been counted.
type ClientStats struct {
	// Written counts messages, those that [Idempotent] found in place among them.
	Written int64
	// Conflicts counts calls that failed with a [*VersionConflictError], Duplicates those with a [*DuplicateIDError].
	Conflicts, Duplicates int64
}

type clientCounters struct {
	written, conflicts, duplicates atomic.Int64
}

// countWrite counts a write by its outcome. Consumers' writes of their positions do not count.
func (c *clientCounters) countWrite(messages int, err error) {
	switch {
	case err == nil:
		c.written.Add(int64(messages))
	case errors.As(err, new(*VersionConflictError)):
		c.conflicts.Add(1)
	case errors.As(err, new(*DuplicateIDError)):
		c.duplicates.Add(1)
	}
}

// Stats returns the counts as they are now, without a round trip. It is for metrics of any kind: this package knows none.
func (c *Client) Stats() ClientStats {
	return ClientStats{Written: c.counters.written.Load(), Conflicts: c.counters.conflicts.Load(), Duplicates: c.counters.duplicates.Load()}
}

// SubscriptionStats count what a subscription has done.
type SubscriptionStats struct {
	// Position is that of the last message that was handled, in the stream or, of a category, the global one; 0 before the first.
	Position int64
	// Handled counts messages that were handled without error, Retried the errors of reading that were retried, Rewound how often it began
	// again because the store had gone back, by [RewindRestart].
	Handled, Retried, Rewound int64
}

type subscriptionCounters struct {
	position, handled, retried, rewound atomic.Int64
}

// Stats returns the counts as they are now, without a round trip, also when the subscription has ended.
func (s *Subscription) Stats() SubscriptionStats {
	return SubscriptionStats{
		Position: s.counters.position.Load(), Handled: s.counters.handled.Load(), Retried: s.counters.retried.Load(), Rewound: s.counters.rewound.Load(),
	}
}
