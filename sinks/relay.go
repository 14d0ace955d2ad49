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

// ErrStarted is returned by [Relay.Run] when it was called before.
var ErrStarted = errors.New("sinks: the relay was started before; make another one, with another source")

// Relay takes messages from a Source to a Sink. Stats may be called at any time, and Run once: what was read and not confirmed is lost to a Source that
// goes on, so another relay needs a Source that begins behind the last confirmed message, such as that of a new [cdc.Stream].
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

// Run delivers messages until the context ends, and returns nil then. Deliveries that run at that time are waited for, up to
// [Config.DeliveryTimeout], and confirmed. It returns a permanent error of the source, [ErrStarted], or with the policy [Stop] a
// [*DeliveryError].
func (r *Relay) Run(ctx context.Context) error {
	if !r.started.CompareAndSwap(false, true) {
		return ErrStarted
	}
	r.count(func(s *Stats) { s.Running = true })
	defer r.count(func(s *Stats) { s.Running = false })
	reading, stopReading := context.WithCancel(ctx)
	l := &loop{
		Relay: r, queue: newQueue(r.backoff),
		limits: make(chan int), arrived: make(chan []Message), broken: make(chan error, 1),
		results: make(chan []*task, r.config.Parallelism), confirmed: make(chan confirmation, 1),
		working: context.WithoutCancel(ctx),
	}
	var reader sync.WaitGroup
	reader.Go(func() { l.read(reading) })
	defer func() {
		stopReading()
		reader.Wait()
		if s, found := r.config.Source.(ClosableSource); found {
			s.Close()
		}
	}()
	return l.run(ctx, stopReading)
}

func (r *Relay) backoff() *backoff.Backoff {
	return backoff.New(r.config.ShortestRetry, r.config.LongestRetry)
}

// loop is one run of a Relay. One goroutine owns it; others read, deliver and confirm, and answer through channels.
type loop struct {
	*Relay
	queue   *queue
	working context.Context //nolint:containedctx // of deliveries and confirmations, which outlive the context of Run

	limits  chan int // asks the reader for messages
	asked   bool
	arrived chan []Message
	broken  chan error // the source ended with an error, or resumes
	// lost is closed when the source loses its place; isLost is set then until it has said so by itself, and resuming from then on, until all deliveries have ended
	// that began before.
	lost             <-chan struct{}
	isLost, resuming bool

	inFlight int
	results  chan []*task

	unconfirmed any // the position to confirm next
	confirming  bool
	confirmed   chan confirmation
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
		if l.resuming && l.inFlight == 0 && !l.confirming {
			l.resume()
		}
		if !stopping && !l.isLost && !l.resuming {
			l.dispatch()
		} else if stopping && l.inFlight == 0 && !l.confirming {
			return errors.Join(err, l.confirmLast())
		}
		limits, limit := l.ask(stopping)
		retry := l.retryTimer(stopping)
		select {
		case <-ended:
			stop(nil)
		case limits <- limit:
			l.asked = true
		case messages := <-l.arrived:
			l.asked = false
			l.queue.add(messages)
			l.lost = lost(l.config.Source)
		case <-l.lost:
			l.lost, l.isLost = nil, true
		case broken := <-l.broken:
			if l.resuming = resumes(broken); !l.resuming {
				stop(broken)
			}
		case tasks := <-l.results:
			l.inFlight--
			if failed := l.settle(tasks); failed != nil {
				stop(failed)
			}
		case <-retry:
		case <-ticker.C:
			l.confirm()
		case c := <-l.confirmed:
			l.endConfirmation(c)
		}
		l.publish()
	}
}

// resume forgets what was read. The reader has forgotten that it was asked.
func (l *loop) resume() {
	l.queue, l.unconfirmed = newQueue(l.backoff), nil
	l.asked, l.isLost, l.resuming, l.lost = false, false, false, nil
}

func lost(s Source) <-chan struct{} {
	if claimed, found := s.(ClaimedSource); found {
		return claimed.Lost()
	}
	return nil
}

// dispatch starts deliveries while there are messages, and calls of the sink left.
func (l *loop) dispatch() {
	for l.inFlight < l.config.Parallelism {
		lanes := l.queue.take(l.config.BatchSize, time.Now())
		if len(lanes) == 0 {
			return
		}
		tasks := make([]*task, len(lanes))
		for i, lane := range lanes {
			tasks[i] = &task{lane: lane, entry: lane.entries[0]}
		}
		l.inFlight++
		go func() { l.results <- l.deliver(l.working, tasks) }()
	}
}

// ask returns the channel to ask the reader on, nil while it has been asked or the window is full.
func (l *loop) ask(stopping bool) (chan<- int, int) {
	room := l.config.Window - len(l.queue.entries)
	if l.isLost && !stopping && !l.asked {
		return l.limits, l.config.BatchSize // it answers with an error
	}
	if stopping || l.asked || room <= 0 || l.queue.bytes >= l.config.WindowBytes {
		return nil, 0
	}
	return l.limits, min(room, l.config.BatchSize)
}

func (l *loop) retryTimer(stopping bool) <-chan time.Time {
	at := l.queue.nextRetry()
	if stopping || l.isLost || l.resuming || at.IsZero() || l.inFlight == l.config.Parallelism {
		return nil
	}
	return time.After(time.Until(at))
}

// read gives the loop what it asks for, until the context ends or the source fails for good.
func (l *loop) read(ctx context.Context) {
	pause := l.backoff()
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
		if resumes(err) {
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

// readPage calls the source until it gives messages.
func (l *loop) readPage(ctx context.Context, limit int, pause *backoff.Backoff) ([]Message, error) {
	for {
		var messages []Message
		err := catch(func() (err error) { messages, err = l.config.Source.Next(ctx, limit); return err })
		if err == nil {
			pause.Reset()
			return messages, nil
		}
		if IsPermanent(err) || ctx.Err() != nil {
			return nil, err
		}
		l.count(func(s *Stats) { s.SourceErrors++; s.LastError = err })
		l.log.add("the source of a sink cannot be read; it is tried again", err)
		if resumes(err) || backoff.Pause(ctx, pause.Delay()) != nil {
			return nil, err
		}
	}
}

// settle records what became of deliveries. It returns an error if the relay must stop.
func (l *loop) settle(tasks []*task) (stopped error) {
	now := time.Now()
	for _, t := range tasks {
		switch t.verdict {
		case finished:
			l.queue.finish(t.lane)
		case retried:
			l.queue.delay(t.lane, now, t.err)
		case stops:
			l.queue.delay(t.lane, now, t.err)
			stopped = errors.Join(stopped, &DeliveryError{Message: t.entry.message, Attempts: t.entry.attempts, Err: t.err})
		}
	}
	if position, found := l.queue.confirmable(); found {
		l.unconfirmed = position
	}
	return stopped
}

// confirm starts to confirm what was delivered, unless a confirmation is on its way.
func (l *loop) confirm() {
	if l.unconfirmed == nil || l.confirming || l.isLost || l.resuming {
		return
	}
	l.confirming = true
	position := l.unconfirmed
	l.unconfirmed = nil
	go func() { l.confirmed <- confirmation{position, l.confirmSource(position)} }()
}

func (l *loop) endConfirmation(c confirmation) {
	l.confirming = false
	if c.err == nil {
		return
	}
	l.count(func(s *Stats) { s.SourceErrors++; s.LastError = c.err })
	l.log.add("a position cannot be confirmed; it is tried again", c.err)
	if l.unconfirmed == nil {
		l.unconfirmed = c.position
	}
}

// confirmLast confirms what was delivered before the relay ends. If it fails, these messages come again.
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
	return catch(func() error { return l.config.Source.Confirm(ctx, position) })
}
