package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// FanoutConfig configures [OpenFanout].
type FanoutConfig struct {
	// Config is that of the stream. OnlyAcknowledged is set. Temporary must not be.
	Config
	// Consumers name those that read the slot, each with a position of its own: 1 to 100 names, each 1 to 63 bytes. The slot keeps what one of
	// them has not acknowledged, also while it is away. One that is left out after a restart is forgotten.
	Consumers []string
	// BufferLimit bounds the changes that are kept in memory because a consumer has not read or not acknowledged them, in bytes; what the
	// stream itself holds comes on top (MemoryLimit). Default: 64 MiB; at least 64 KiB.
	BufferLimit int64
	// Patience is how long a full buffer keeps a consumer that waits from going on, for the sake of one that is behind or away. After
	// that, the one behind is cut: it has to begin anew, and the others go on. Default: 10 seconds. Negative: none.
	SlowConsumerTimeout time.Duration
}

// The fields of [FanoutConfig] that can be wrong.
const (
	FieldConsumers   Field = "Consumers"
	FieldBufferLimit Field = "BufferLimit"
)

const (
	defaultSlowConsumerTimeout = 10 * time.Second
	maxConsumers               = 100
	// partSize is how much of a large transaction is handed on at a time.
	maxPartSize = 256 << 10
)

// WithDefaults is a copy in which all that was zero has its default.
func (c FanoutConfig) WithDefaults() FanoutConfig {
	c.Config = c.Config.WithDefaults()
	c.OnlyAcknowledged = true
	setDefault(&c.BufferLimit, 64<<20)
	setDefault(&c.SlowConsumerTimeout, defaultSlowConsumerTimeout)
	return c
}

func (c *FanoutConfig) validate() error {
	if len(c.Consumers) == 0 || len(c.Consumers) > maxConsumers {
		return newInvalidError(FieldConsumers, len(c.Consumers), "1 to 100 names")
	}
	for i, name := range c.Consumers {
		if err := validateName(FieldConsumers, name); err != nil {
			return err
		}
		if slices.Contains(c.Consumers[:i], name) {
			return newInvalidError(FieldConsumers, name, "each name once")
		}
	}
	switch {
	case c.Temporary:
		return newInvalidError(FieldSlot, c.Slot, "one that is not temporary")
	case c.BufferLimit < 64<<10:
		return newInvalidError(FieldBufferLimit, c.BufferLimit, "at least 65536 bytes")
	}
	return nil
}

// Fanout has several consumers read one slot. Its changes are received and decoded once. Each consumer has a position of its own, and may
// be away for as long as what it misses fits into the buffer; the slot is confirmed up to the one that is furthest behind. After a restart of
// the process, all that was not confirmed comes from the slot again, and each consumer goes on at the position that it has kept.
//
// A consumer that is so far behind that the buffer is full, while another one waits, is cut after SlowConsumerTimeout: it gets [ErrResyncNeeded], and the
// slot does not wait for it any more. It begins anew with [Fanout.Join], and with [Fanout.Backfill] for what is in the tables. While all
// are behind, or away, nobody is cut: the stream waits, and Postgres keeps the rest, as it does for an ordinary slot.
//
// All methods can be called by any goroutine.
type Fanout struct {
	config FanoutConfig
	stream *Stream
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	parts []*part // what somebody may still need
	first int     // the number of parts[0]; each part has the next number
	size  int64   // of parts
	// last is the end of the last transaction in parts, or before them; told is what the stream was told of.
	lastEnd, confirmed LSN
	consumers          map[string]*consumerState
	pressedSince       time.Time // since when a full buffer has kept somebody waiting; zero while it does not
	lastFull           time.Time // when it did so last
	err                error     // why there is no more
	changed            chan struct{}
}

// part is a piece of a transaction, or all of it. Nothing writes to it once it is there.
type part struct {
	transaction     *Transaction // its description
	changes         []*Change
	isFirst, isLast bool
	size            int64
}

// OpenFanout connects and begins to read. It fails with an [*InvalidError], and as [Open] does. It must be closed.
func OpenFanout(ctx context.Context, config FanoutConfig) (*Fanout, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	stream, err := Open(ctx, config.Config)
	if err != nil {
		return nil, err
	}
	at := stream.positions.deliveredEnd()
	f := &Fanout{
		config: config, stream: stream, done: make(chan struct{}), lastEnd: at, confirmed: at,
		consumers: map[string]*consumerState{}, changed: make(chan struct{}),
	}
	for _, name := range config.Consumers {
		f.consumers[name] = &consumerState{name: name, acknowledged: at}
	}
	reading, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go f.readStream(reading)
	return f, nil
}

// Close ends it. What was acknowledged is told to the server before. It can be called more than once.
func (f *Fanout) Close() {
	f.cancel()
	<-f.done
	f.stream.Close()
}

// Stats are those of the stream.
func (f *Fanout) Stats() Stats { return f.stream.Stats() }

// readStream hands on what the stream gives until it ends.
func (f *Fanout) readStream(ctx context.Context) {
	defer close(f.done)
	err := f.readTransactions(ctx)
	if ctx.Err() != nil {
		err = ErrClosed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	f.notifyAll()
}

func (f *Fanout) readTransactions(ctx context.Context) error {
	for {
		t, err := f.stream.Next(ctx)
		if err != nil {
			return err
		}
		p := &part{transaction: t.copyHeader(), isFirst: true}
		for change, err := range t.Changes() {
			if err != nil {
				return err
			}
			if p.size >= maxPartSize {
				if err := f.addPart(ctx, p); err != nil {
					return err
				}
				p = &part{transaction: p.transaction}
			}
			p.changes = append(p.changes, change)
			p.size += change.memorySize()
		}
		p.isLast = true
		if err := f.addPart(ctx, p); err != nil {
			return err
		}
	}
}

// copyHeader is a copy without changes.
func (t *Transaction) copyHeader() *Transaction {
	return &Transaction{
		XID: t.XID, CommitLSN: t.CommitLSN, EndLSN: t.EndLSN, CommitTime: t.CommitTime, Origin: t.Origin, OriginLSN: t.OriginLSN,
		Size: t.Size, Spilled: t.Spilled, Backfill: t.Backfill, BackfillEnds: t.BackfillEnds,
	}
}

// memorySize is about what a change takes in memory.
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

// partWeight is what a part takes without changes.
const partOverhead = 256

// addPart waits for room, and hands a part on.
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

// endNumber is the number of the part that comes next.
func (f *Fanout) endNumber() int { return f.first + len(f.parts) }

// trimParts forgets what nobody needs any more.
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

// remainingTimeout is how long a full buffer is borne with; negative if nobody waits: who begins to wait wakes the reader.
func (f *Fanout) remainingTimeout() time.Duration {
	if f.pressedSince.IsZero() || !f.hasWaitingConsumer() {
		return -1
	}
	return max(0, f.config.SlowConsumerTimeout-time.Since(f.pressedSince))
}

// dropFirstPart forgets the first part for the sake of one who waits, and cuts those who have not read it, or are away and may come back for it.
// It reports whether it did. There must be one.
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
			c.firstKept, c.hasGap = f.first+1, true // it goes on, but cannot come back before it has acknowledged more
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

// isFirstPartUnread reports whether somebody would be cut without the first part. Otherwise it is kept only for those that have read it and may come back:
// a transaction that is larger than the buffer could not be read on for that.
func (f *Fanout) isFirstPartUnread() bool {
	for _, c := range f.consumers {
		if !c.isLost && c.firstKept <= f.first && !c.hasRead(f.first) {
			return true
		}
	}
	return false
}

// hasRead reports whether a consumer that reads has a part behind it.
func (c *consumerState) hasRead(part int) bool { return c.reader != nil && c.nextPart > part }

func (f *Fanout) hasWaitingConsumer() bool {
	for _, c := range f.consumers {
		if c.reader != nil && c.isWaiting && !c.isLost && c.nextPart == f.endNumber() {
			return true
		}
	}
	return false
}

// confirmLowest tells the stream what all have acknowledged.
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

// notifyAll wakes all that wait.
func (f *Fanout) notifyAll() {
	close(f.changed)
	f.changed = make(chan struct{})
}

var errWaitTimeout = errors.New("patience has ended")

// waitForChange waits for something to move, with mu held before and after. A negative limit is none. It fails when the context or stop ends, or with
// errPatience.
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

// ConsumerStatus says how one consumer stands.
type ConsumerStatus struct {
	Name string
	// Attached is set while it reads.
	Attached bool
	// Lost is set when it was cut, or has missed what the buffer had no room for: it has to begin anew.
	Lost bool
	// Acknowledged is the end of the last transaction that it has acknowledged.
	Acknowledged LSN
	// LagBytes is the log from Acknowledged to what the server has read for the stream.
	LagBytes int64
	// Waiting is how many transactions, or parts of large ones, are in the buffer that it has not read.
	Waiting int
}

// Consumers says how all of them stand, in the order of their names.
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

// Backfill begins to read a table beside the stream, as [Stream.Backfill] does, for one consumer: the others do not get its rows. It cannot
// be taken up after a restart: begin it anew.
//
// It fails as [Stream.Backfill] does, and with an [*InvalidError] for an unknown consumer or a Token.
func (f *Fanout) Backfill(ctx context.Context, consumer string, config BackfillConfig) (*Backfill, error) {
	f.mu.Lock()
	err := f.requireConsumer(consumer)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if config.Token != "" {
		return nil, newInvalidError(FieldToken, config.Token, "none, for a backfill of one consumer")
	}
	config.consumer = consumer
	return f.stream.Backfill(ctx, config)
}

// Add has one consumer more. It is kept what comes from now on: [Fanout.Join] and [Fanout.Backfill] give it the rest. It fails with an
// [*InvalidError] for a name that there is, and for more than 100.
func (f *Fanout) Add(name string) error {
	if err := validateName(FieldConsumers, name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.consumers[name] != nil:
		return newInvalidError(FieldConsumers, name, "each name once")
	case len(f.consumers) == maxConsumers:
		return newInvalidError(FieldConsumers, maxConsumers+1, "1 to 100 names")
	}
	f.consumers[name] = &consumerState{name: name, acknowledged: f.lastEnd, nextPart: f.endNumber(), firstKept: f.endNumber()}
	f.notifyAll()
	return nil
}

// Remove forgets a consumer: the slot does not wait for it any more. If it reads, that ends with [ErrConsumerRemoved]. It fails with an [*InvalidError] for
// an unknown name. Without any consumer, the slot stays where it is.
func (f *Fanout) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.requireConsumer(name); err != nil {
		return err
	}
	f.consumers[name].isRemoved = true
	delete(f.consumers, name)
	f.confirmLowest()
	f.notifyAll()
	return nil
}

// requireConsumer is an error where there is no consumer of a name, with mu held.
func (f *Fanout) requireConsumer(name string) error {
	if f.consumers[name] != nil {
		return nil
	}
	return newInvalidError(FieldConsumers, name, fmt.Sprintf("one of %q", slices.Sorted(maps.Keys(f.consumers))))
}
