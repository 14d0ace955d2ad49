package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// ErrStarted is returned by [Relay.Run] if it was called before.
var ErrStarted = errors.New("sinks: the relay was started before; create another one, with a new source")

// Relay takes messages from a Source to a Sink. Stats may be called at any time, and Run only once: the Source would not give messages
// again that were read and not confirmed. So another relay needs a new Source, which starts after the last confirmed message, such as that
// of a new [cdc.Stream].
type Relay struct {
	config  Config
	started atomic.Bool
	log     failureLog

	mu    sync.Mutex
	stats Stats
}

// NewRelay returns a Relay, or an [*InvalidError].
func NewRelay(config Config) (*Relay, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &Relay{config: config, log: failureLog{logger: config.Logger}}, nil
}

// Run delivers messages until the context ends, and then returns nil. It first waits for running deliveries, up to
// [Config.DeliveryTimeout], and confirms them. It returns a permanent error of the source, [ErrStarted], or with the policy [Stop] a
// [*DeliveryError].
func (r *Relay) Run(ctx context.Context) error {
	if !r.started.CompareAndSwap(false, true) {
		return ErrStarted
	}
	r.addStats(func(s *Stats) { s.Running = true })
	defer r.addStats(func(s *Stats) { s.Running = false })
	reading, stopReading := context.WithCancel(ctx)
	l := &loop{
		Relay: r, queue: newQueue(r.newBackoff),
		limits: make(chan int), arrived: make(chan []Message), broken: make(chan error, 1),
		results: make(chan []*task, r.config.Parallelism), confirmed: make(chan confirmation, 1),
		working: context.WithoutCancel(ctx),
	}
	var reader sync.WaitGroup
	reader.Go(func() { l.readSource(reading) })
	defer func() {
		stopReading()
		reader.Wait()
		if s, found := r.config.Source.(ClosableSource); found {
			s.Close()
		}
	}()
	return l.run(ctx, stopReading)
}

func (r *Relay) newBackoff() *backoff.Backoff {
	return backoff.New(r.config.ShortestRetry, r.config.LongestRetry)
}

// loop is one run of a Relay. One goroutine owns it; others read, deliver and confirm, and answer through channels.
type loop struct {
	*Relay
	queue   *queue
	working context.Context //nolint:containedctx // for deliveries and confirmations, which outlive the context of Run

	limits  chan int // requests to the reader
	isAsked bool
	arrived chan []Message
	broken  chan error // the error that ended the source, or one marked by Resume
	// lost is closed when the source loses its claim. isLost is set from then until the source returns its error, and isResuming from that
	// error until all deliveries that began before have ended.
	lost               <-chan struct{}
	isLost, isResuming bool

	inFlight int
	results  chan []*task

	unconfirmed  any // the position to confirm next
	isConfirming bool
	confirmed    chan confirmation
}

type confirmation struct {
	position any
	err      error
}

func (l *loop) run(ctx context.Context, stopReading func()) (err error) {
	ticker := time.NewTicker(l.config.ConfirmInterval)
	defer ticker.Stop()
	ended, stopping := ctx.Done(), false
	stop := func(because error) {
		err = errors.Join(err, because)
		ended, stopping = nil, true
		stopReading()
	}
	for {
		if l.isResuming && l.inFlight == 0 && !l.isConfirming {
			l.forgetRead()
		}
		if !stopping && !l.isLost && !l.isResuming {
			l.startDeliveries()
		} else if stopping && l.inFlight == 0 && !l.isConfirming {
			return errors.Join(err, l.confirmLast())
		}
		limits, limit := l.nextRequest(stopping)
		retry := l.retryTimer(stopping)
		select {
		case <-ended:
			stop(nil)
		case limits <- limit:
			l.isAsked = true
		case messages := <-l.arrived:
			l.isAsked = false
			l.queue.add(messages)
			l.lost = lostChannel(l.config.Source)
		case <-l.lost:
			l.lost, l.isLost = nil, true
		case broken := <-l.broken:
			if l.isResuming = isResume(broken); !l.isResuming {
				stop(broken)
			}
		case tasks := <-l.results:
			l.inFlight--
			if failed := l.recordOutcomes(tasks); failed != nil {
				stop(failed)
			}
		case <-retry:
		case <-ticker.C:
			l.startConfirmation()
		case c := <-l.confirmed:
			l.endConfirmation(c)
		}
		l.publishStats()
	}
}

// forgetRead forgets the messages that were read. The reader has already dropped its request.
func (l *loop) forgetRead() {
	l.queue, l.unconfirmed = newQueue(l.newBackoff), nil
	l.isAsked, l.isLost, l.isResuming, l.lost = false, false, false, nil
}

func lostChannel(s Source) <-chan struct{} {
	if claimed, found := s.(ClaimedSource); found {
		return claimed.Lost()
	}
	return nil
}

// startDeliveries starts deliveries while messages are ready and Parallelism allows.
func (l *loop) startDeliveries() {
	for l.inFlight < l.config.Parallelism {
		lanes := l.queue.takeReady(l.config.BatchSize, time.Now())
		if len(lanes) == 0 {
			return
		}
		tasks := make([]*task, len(lanes))
		for i, lane := range lanes {
			tasks[i] = &task{lane: lane, entry: lane.entries[0]}
		}
		l.inFlight++
		go func() { l.results <- l.deliverTasks(l.working, tasks) }()
	}
}

// nextRequest returns the channel on which to request messages, nil while a request is pending or the window is full.
func (l *loop) nextRequest(stopping bool) (chan<- int, int) {
	room := l.config.Window - len(l.queue.entries)
	if l.isLost && !stopping && !l.isAsked {
		return l.limits, l.config.BatchSize // it answers with an error
	}
	if stopping || l.isAsked || room <= 0 || l.queue.bytes >= l.config.WindowBytes {
		return nil, 0
	}
	return l.limits, min(room, l.config.BatchSize)
}

func (l *loop) retryTimer(stopping bool) <-chan time.Time {
	at := l.queue.nextRetry()
	if stopping || l.isLost || l.isResuming || at.IsZero() || l.inFlight == l.config.Parallelism {
		return nil
	}
	return time.After(time.Until(at))
}

// readSource answers requests of the loop until the context ends or the source fails permanently.
func (l *loop) readSource(ctx context.Context) {
	pause := l.newBackoff()
	for {
		var limit int
		select {
		case limit = <-l.limits:
		case <-ctx.Done():
			return
		}
		messages, err := l.readPage(ctx, limit, pause)
		if ctx.Err() != nil {
			return
		}
		if isResume(err) {
			l.broken <- err
			if backoff.Pause(ctx, pause.Delay()) != nil {
				return
			}
			continue
		}
		if err != nil {
			l.broken <- fmt.Errorf("sinks: the source cannot go on: %w", err)
			return
		}
		select {
		case l.arrived <- messages:
		case <-ctx.Done():
			return
		}
	}
}

// readPage calls the source until it returns messages.
func (l *loop) readPage(ctx context.Context, limit int, pause *backoff.Backoff) ([]Message, error) {
	for {
		var messages []Message
		err := catchPanic(func() (err error) { messages, err = l.config.Source.Next(ctx, limit); return err })
		if err == nil {
			pause.Reset()
			return messages, nil
		}
		if IsPermanent(err) || ctx.Err() != nil {
			return nil, err
		}
		l.addStats(func(s *Stats) { s.SourceErrors++; s.LastError = err })
		l.log.logFailure("the source of a sink cannot be read; it is tried again", err)
		if isResume(err) || backoff.Pause(ctx, pause.Delay()) != nil {
			return nil, err
		}
	}
}

// recordOutcomes records the results of deliveries. It returns an error if the relay must stop.
func (l *loop) recordOutcomes(tasks []*task) (stopped error) {
	now := time.Now()
	for _, t := range tasks {
		switch t.verdict {
		case finished:
			l.queue.finishFirst(t.lane)
		case retried:
			l.queue.delayLane(t.lane, now, t.err)
		case stops:
			l.queue.delayLane(t.lane, now, t.err)
			stopped = errors.Join(stopped, &DeliveryError{Message: t.entry.message, Attempts: t.entry.attempts, Err: t.err})
		}
	}
	if position, found := l.queue.takeConfirmable(); found {
		l.unconfirmed = position
	}
	return stopped
}

// startConfirmation confirms the finished messages, unless a confirmation is running.
func (l *loop) startConfirmation() {
	if l.unconfirmed == nil || l.isConfirming || l.isLost || l.isResuming {
		return
	}
	l.isConfirming = true
	position := l.unconfirmed
	l.unconfirmed = nil
	go func() { l.confirmed <- confirmation{position, l.confirmSource(position)} }()
}

func (l *loop) endConfirmation(c confirmation) {
	l.isConfirming = false
	if c.err == nil {
		return
	}
	l.addStats(func(s *Stats) { s.SourceErrors++; s.LastError = c.err })
	l.log.logFailure("a position cannot be confirmed; it is tried again", c.err)
	if l.unconfirmed == nil {
		l.unconfirmed = c.position
	}
}

// confirmLast confirms the finished messages when the relay ends. If it fails, these messages come again.
func (l *loop) confirmLast() error {
	if l.unconfirmed == nil {
		return nil
	}
	if err := l.confirmSource(l.unconfirmed); err != nil {
		return fmt.Errorf("sinks: the last position cannot be confirmed: %w", err)
	}
	return nil
}

func (l *loop) confirmSource(position any) error {
	ctx, cancel := context.WithTimeout(l.working, l.config.DeliveryTimeout)
	defer cancel()
	return catchPanic(func() error { return l.config.Source.Confirm(ctx, position) })
}
