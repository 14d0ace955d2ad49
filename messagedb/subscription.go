package messagedb

import (
	"cmp"
	"context"
	"errors"
	"sync"
)

// SubscriptionOptions say how a subscription goes about it. The zero value is useful. Its functions are called by the
// subscription's own goroutine, one at a time.
type SubscriptionOptions struct {
	// Polling is how it polls. Default: that of the client.
	Polling PollingStrategy
	// Notify lets writes of clients that notify wake it; see [Config]. It goes on polling, too. The client's subscriptions
	// share one more connection for it. Default: false.
	Notify bool
	// Rewind decides what happens when the store has gone back behind the position, or From is ahead of it: [RewindStop] or
	// [RewindRestart]. Default: RewindStop.
	Rewind RewindPolicy
	// Liveness is told true when the subscription has caught up: a read found less than a batch, and that has been handled. It
	// is told false when a full batch was handled after that. Default: nobody is told.
	Liveness func(live bool)
	// Retried is told of each error that the subscription tries to get over: see [IsTransient]. Default: nobody is told; it
	// is logged.
	Retried func(err error)
	// Dropped is told when the subscription has ended: nil if it was stopped or its context ended, else why: a
	// [*HandlerError], a [*RewoundError] or another error of reading that is not transient, as the next read after its pool was closed. Default: nobody
	// is told.
	Dropped func(err error)
}

// Subscription delivers messages until it is stopped.
type Subscription struct {
	stop  context.CancelFunc
	done  chan struct{}
	err   error
	drop  func(error)
	leave func()

	counters subscriptionCounters

	mu     sync.Mutex // held while it is decided whether a message is delivered
	ending bool
}

// SubscribeToStream delivers the messages of a stream from options.From on, those that are there and those that come, to
// handle, in order and one at a time. An error of handle ends the subscription. It ends with ctx, too.
//
// It returns an [*InvalidError] for what cannot be subscribed to, [Unlimited] among it. What else may go wrong, Dropped is
// told, and [Subscription.Err].
func (c *Client) SubscribeToStream(ctx context.Context, stream StreamName, handle Handler, read StreamOptions, options SubscriptionOptions) (*Subscription, error) {
	o, err := read.prepareOptions(stream)
	if err != nil {
		return nil, err
	}
	return c.startSubscription(ctx, c.streamFeed(stream, o), stream.Category(), o.From, handle, options)
}

// SubscribeToCategory delivers the messages of a category from options.From on, as [Client.SubscribeToStream] does. Messages
// of one stream come in order. Nothing is skipped that was written with the server's write_message.
func (c *Client) SubscribeToCategory(ctx context.Context, category string, handle Handler, read CategoryOptions, options SubscriptionOptions) (*Subscription, error) {
	o, err := read.prepareOptions(category)
	if err != nil {
		return nil, err
	}
	return c.startSubscription(ctx, c.categoryFeed(category, o), category, o.From, handle, options)
}

func (c *Client) startSubscription(ctx context.Context, f *feed, category string, from int64, handle Handler, o SubscriptionOptions) (*Subscription, error) {
	if err := c.prepareFeed(f, o.Polling); err != nil {
		return nil, err
	}
	o.Rewind = cmp.Or(o.Rewind, RewindStop)
	if err := o.Rewind.validate(); err != nil {
		return nil, err
	}
	if handle == nil {
		return nil, newInvalidError(FieldHandler, "nil", "must be a function")
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Subscription{stop: cancel, done: make(chan struct{}), drop: o.Dropped, leave: func() {}}
	tell := watchLiveness(o.Liveness)
	f.onBatch = func(retrieved, expected int) {
		if s.mayDeliver() { // what is left of a batch after Stop was not handled
			tell(retrieved, expected)
		}
	}
	f.onError = func(err error) {
		s.counters.retried.Add(1)
		if o.Retried != nil {
			o.Retried(err)
		}
	}
	if o.Notify {
		f.woken, s.leave = c.notifier.addWaiter(category)
	}
	go s.run(ctx, f, from, handle, o.Rewind)
	return s, nil
}

// prepareFeed checks what subscriptions and consumers have in common.
func (c *Client) prepareFeed(f *feed, strategy PollingStrategy) (err error) {
	if c.tx != nil || c.db == nil {
		return newInvalidError(FieldTx, "a client of InTx", "cannot subscribe: use the client of the pool")
	}
	if f.batch == Unlimited {
		return newInvalidError(FieldBatchSize, f.batch, "must not be unlimited here: a subscription holds one batch in memory")
	}
	if strategy == nil {
		strategy = c.config.Polling
	}
	f.polling, err = newPolling(strategy)
	return err
}

// watchLiveness returns a function that calls tell when batches stop being full, and when they are full again.
func watchLiveness(tell func(bool)) func(retrieved, expected int) {
	if tell == nil {
		return func(int, int) {}
	}
	live := false
	return func(retrieved, expected int) {
		if now := retrieved < expected; now != live {
			live = now
			tell(live)
		}
	}
}

func (s *Subscription) run(ctx context.Context, f *feed, from int64, handle Handler, policy RewindPolicy) {
	defer close(s.done)
	defer s.stop()
	deliver := func(m *Message) error {
		if !s.mayDeliver() {
			return nil // the context has ended, or is about to
		}
		if err := callRecovering(ctx, handle, m); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return &HandlerError{Message: m, Attempts: 1, Err: err}
		}
		s.counters.position.Store(f.place(m))
		s.counters.handled.Add(1)
		return nil
	}
	err := f.run(ctx, from, place{position: from - 1}, deliver)
	for errors.As(err, new(*RewoundError)) && policy == RewindRestart {
		f.logger.Warn("messagedb: beginning again at the first message", "reading", f.name, "error", err)
		s.counters.rewound.Add(1)
		err = f.run(ctx, 0, place{position: -1}, deliver)
	}
	s.leave()
	s.err = err
	if s.drop != nil {
		s.drop(err)
	}
}

func (s *Subscription) mayDeliver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ending
}

// Stop ends the subscription. When it returns, no message will be delivered that is not being handled already; the context
// of that one has ended. It does not wait: see Done. It may be called by the handler, and more than once.
func (s *Subscription) Stop() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.stop()
}

// Done is closed when the subscription has ended and no function of it will be called any more.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err waits for the end of the subscription and returns its cause: nil if it was stopped or its context ended.
func (s *Subscription) Err() error {
	<-s.done
	return s.err
}
