package cdc

import (
	"context"
	"errors"
	"time"
)

// part is a transaction or a piece of a large one. It is not modified after it was added.
type part struct {
	transaction     *Transaction // without its changes
	changes         []*Change
	isFirst, isLast bool
	size            int64
}

const (
	// maxPartSize is the size of the pieces of a large transaction.
	maxPartSize = 256 << 10
	// partOverhead is about the memory of a part without changes.
	partOverhead = 256
)

// memorySize returns about how much memory a change takes.
func (c *Change) memorySize() int64 {
	bytes := 256
	for _, row := range [][]Value{c.New, c.Old, c.Key} {
		for i := range row {
			bytes += 24 + len(row[i].Text)
		}
	}
	if c.Message != nil {
		bytes += len(c.Message.Prefix) + len(c.Message.Content)
	}
	return int64(bytes)
}

// addPart waits until the buffer has space, and adds a part.
func (f *Fanout) addPart(ctx context.Context, p *part) error {
	p.size += partOverhead
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.trimParts(); f.size > 0 && f.size+p.size > f.config.BufferLimit; f.trimParts() {
		f.lastFull = time.Now()
		if f.dropFirstPart() {
			continue
		}
		if err := f.waitForChange(ctx, nil, f.remainingTimeout()); err != nil && !errors.Is(err, errWaitTimeout) {
			return err
		}
	}
	if f.size+p.size <= f.config.BufferLimit/2 || time.Since(f.lastFull) > f.config.SlowConsumerTimeout {
		f.pressedSince = time.Time{}
	}
	f.parts = append(f.parts, p)
	f.size += p.size
	if p.isLast {
		f.lastEnd = p.transaction.EndLSN
	}
	f.notifyAll()
	return nil
}

// endNumber is the number of the next part to be added.
func (f *Fanout) endNumber() int { return f.first + len(f.parts) }

// trimParts removes the parts that no consumer needs any more.
func (f *Fanout) trimParts() {
	needed := f.endNumber()
	for _, c := range f.consumers {
		if !c.isLost {
			needed = min(needed, c.firstKept)
		}
	}
	for f.first < needed {
		f.removeFirstPart()
	}
}

func (f *Fanout) removeFirstPart() {
	f.size -= f.parts[0].size
	f.parts[0] = nil
	f.parts = f.parts[1:]
	f.first++
}

// remainingTimeout is the rest of SlowConsumerTimeout. It is negative if no consumer waits; one that begins to wait
// wakes the reader.
func (f *Fanout) remainingTimeout() time.Duration {
	if f.pressedSince.IsZero() || !f.hasWaitingConsumer() {
		return -1
	}
	return max(0, f.config.SlowConsumerTimeout-time.Since(f.pressedSince))
}

// dropFirstPart removes the first part so that a waiting consumer can continue, and cuts the consumers that have not
// read it, also detached ones, which may come back for it. It reports whether it has removed the part. There must be a
// part.
func (f *Fanout) dropFirstPart() bool {
	if !f.hasWaitingConsumer() {
		return false
	}
	if f.pressedSince.IsZero() {
		f.pressedSince = time.Now()
	}
	if time.Since(f.pressedSince) < f.config.SlowConsumerTimeout && f.isFirstPartUnread() {
		return false
	}
	for _, c := range f.consumers {
		if c.isLost || c.firstKept > f.first {
			continue
		}
		if c.hasRead(f.first) {
			c.firstKept, c.hasGap = f.first+1, true // it continues, but cannot detach and come back before it has acknowledged more
			continue
		}
		c.isLost, c.delivered = true, nil
		f.config.Logger.Warn("cdc: a consumer is cut: the buffer is full, and another one waits", "slot", f.config.Slot, "consumer", c.name,
			"acknowledged", c.acknowledged, "attached", c.reader != nil, "buffer_bytes", f.size)
	}
	f.confirmLowest()
	f.notifyAll()
	f.removeFirstPart()
	return true
}

// isFirstPartUnread reports whether removing the first part would cut a consumer. Otherwise the part is kept only for
// consumers that have read it and may read it again. Waiting for those would block for ever on a transaction that is
// larger than the buffer.
func (f *Fanout) isFirstPartUnread() bool {
	for _, c := range f.consumers {
		if !c.isLost && c.firstKept <= f.first && !c.hasRead(f.first) {
			return true
		}
	}
	return false
}

// hasRead reports whether the consumer is attached and has read a part.
func (c *consumerState) hasRead(part int) bool { return c.reader != nil && c.nextPart > part }

func (f *Fanout) hasWaitingConsumer() bool {
	for _, c := range f.consumers {
		if c.reader != nil && c.isWaiting && !c.isLost && c.nextPart == f.endNumber() {
			return true
		}
	}
	return false
}

// confirmLowest acknowledges to the stream what all consumers have acknowledged.
func (f *Fanout) confirmLowest() {
	lowest, known := LSN(0), false
	for _, c := range f.consumers {
		if !c.isLost && (!known || c.acknowledged < lowest) {
			lowest, known = c.acknowledged, true
		}
	}
	if !known || lowest <= f.confirmed {
		return
	}
	if err := f.stream.Ack(lowest); err != nil {
		if !errors.Is(err, ErrClosed) {
			f.config.Logger.Error("cdc: an acknowledgement was refused", "slot", f.config.Slot, "error", err)
		}
		return
	}
	f.confirmed = lowest
}

// notifyAll wakes all goroutines in waitForChange.
func (f *Fanout) notifyAll() {
	close(f.changed)
	f.changed = make(chan struct{})
}

var errWaitTimeout = errors.New("the wait for a change has timed out")

// waitForChange waits until the state changes. f.mu is held before and after, and released while waiting. A negative
// limit is no limit. It fails if the context or stop ends, and with errWaitTimeout.
func (f *Fanout) waitForChange(ctx context.Context, stop <-chan struct{}, limit time.Duration) error {
	moved := f.changed
	f.mu.Unlock()
	defer f.mu.Lock()
	var late <-chan time.Time
	if limit >= 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stop:
		return ErrClosed
	case <-late:
		return errWaitTimeout
	}
}
