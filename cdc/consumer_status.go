package cdc

import (
	"cmp"
	"slices"
)

// ConsumerStatus is the state of a consumer of a [Fanout].
type ConsumerStatus struct {
	Name string
	// Attached reports whether the consumer is being read.
	Attached bool
	// Lost reports whether the consumer was cut, or has detached after the buffer dropped changes that it has not
	// acknowledged. It has to start over.
	Lost bool
	// Acknowledged is the end of the last transaction that the consumer has acknowledged.
	Acknowledged LSN
	// LagBytes is the log from Acknowledged to the position up to which the server has read for the stream.
	LagBytes int64
	// Waiting is the number of transactions, or parts of large ones, in the buffer that the consumer has not read.
	Waiting int
}

// Consumers returns the state of all consumers, ordered by name.
func (f *Fanout) Consumers() []ConsumerStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]ConsumerStatus, 0, len(f.consumers))
	sent := f.stream.Stats().Sent
	for _, c := range f.consumers {
		status := ConsumerStatus{Name: c.name, Attached: c.reader != nil, Lost: c.isLost, Acknowledged: c.acknowledged}
		if sent > c.acknowledged {
			status.LagBytes = int64(sent - c.acknowledged) //nolint:gosec // logs are shorter
		}
		if !c.isLost {
			status.Waiting = f.endNumber() - c.firstKept
			if c.reader != nil {
				status.Waiting = f.endNumber() - c.nextPart
			}
		}
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b ConsumerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
