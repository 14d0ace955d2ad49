package messagedb_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/hostile"
	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// soon is how long a test waits for an event that must come. It measures nothing.
const soon = 2 * time.Minute

var quick = messagedb.SubscriptionOptions{Polling: messagedb.ConstantPolling(5 * time.Millisecond)}

// take waits for an element.
func take[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(soon):
		t.Fatal("nothing came")
	}
	return v
}

func sendTo(ch chan<- *messagedb.Message) messagedb.Handler {
	return func(_ context.Context, m *messagedb.Message) error { ch <- m; return nil }
}

func TestSubscriptionsDeliverWhatIsThereAndWhatComes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "a", 2, 10)
		got := make(chan *messagedb.Message, 100)
		stream, err := s.client.SubscribeToStream(t.Context(), "a-1", sendTo(got), messagedb.StreamOptions{From: 4, BatchSize: 3}, quick)
		require.NoError(t, err)
		for _, want := range all[14:] {
			require.Equal(t, want, take(t, got))
		}
		_, err = s.client.WriteMessage(t.Context(), "a-1", newMessage(1), messagedb.AnyVersion)
		require.NoError(t, err)
		require.Equal(t, makeID(1), take(t, got).ID)
		stream.Stop()
		require.NoError(t, stream.Err())
		require.Equal(t, messagedb.SubscriptionStats{Position: 10, Handled: 7}, stream.Stats())

		category, err := s.client.SubscribeToCategory(t.Context(), "a", sendTo(got), messagedb.CategoryOptions{Group: &messagedb.Group{Size: 1}, Correlation: "from1", BatchSize: 3}, quick)
		require.NoError(t, err)
		for _, want := range all[10:] {
			require.Equal(t, want, take(t, got))
		}
		category.Stop()
		require.NoError(t, category.Err())
		require.Empty(t, got)
	})
}

func TestAStoppedSubscriptionDeliversNothingMore(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 1, 100)
	for range 20 {
		var stopped atomic.Bool
		var late atomic.Int64
		started, dropped := make(chan struct{}, 100), make(chan error, 1)
		o := quick
		o.Dropped = func(err error) { dropped <- err }
		sub, err := s.client.SubscribeToStream(t.Context(), "a-0", func(context.Context, *messagedb.Message) error {
			if stopped.Load() {
				late.Add(1)
			}
			started <- struct{}{}
			return nil
		}, messagedb.StreamOptions{}, o)
		require.NoError(t, err)
		take(t, started)
		sub.Stop()
		stopped.Store(true)
		require.NoError(t, take(t, dropped))
		require.NoError(t, sub.Err())
		require.LessOrEqual(t, late.Load(), int64(1), "only one that was being handled")
	}
	// From inside, there is not even that one.
	for _, how := range []string{"Stop", "context"} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		count := 0
		ready := make(chan *messagedb.Subscription, 1)
		sub, err := s.client.SubscribeToStream(ctx, "a-0", func(ctx context.Context, m *messagedb.Message) error {
			if count++; count == 7 {
				if how == "Stop" {
					(<-ready).Stop()
				} else {
					cancel()
				}
				if ctx.Err() == nil {
					t.Error("the handler's context goes on")
				}
			}
			return nil
		}, messagedb.StreamOptions{}, quick)
		require.NoError(t, err)
		ready <- sub
		require.NoError(t, sub.Err())
		require.Equal(t, 7, count, how)
	}
}

func TestAFailingHandlerDropsTheSubscription(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	all := fillCategory(t, s, "a", 1, 10)
	broken := errors.New("broken")
	for name, fail := range map[string]func() error{
		"error": func() error { return broken },
		"panic": func() error { panic("broken") },
	} {
		dropped := make(chan error, 1)
		o := quick
		o.Dropped = func(err error) { dropped <- err }
		sub, err := s.client.SubscribeToCategory(t.Context(), "a", func(_ context.Context, m *messagedb.Message) error {
			if m.Position == 3 {
				return fail()
			}
			return nil
		}, messagedb.CategoryOptions{}, o)
		require.NoError(t, err)
		failed := new(messagedb.HandlerError)
		require.ErrorAs(t, take(t, dropped), &failed, name)
		require.Equal(t, all[3], failed.Message)
		require.Equal(t, sub.Err(), error(failed))
		if name == "error" {
			require.ErrorIs(t, failed, broken)
		} else {
			panicked := new(messagedb.PanicError)
			require.ErrorAs(t, failed, &panicked)
			require.Equal(t, "broken", panicked.Value)
			require.Contains(t, string(panicked.Stack), "subscription_test.go")
		}
	}
}

func TestLivenessChangesWithTheSizeOfBatches(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 1, 10)
	live := make(chan bool, 10)
	hold := make(chan struct{})
	o := quick
	o.Liveness = func(is bool) { live <- is }
	sub, err := s.client.SubscribeToStream(t.Context(), "a-0", func(_ context.Context, m *messagedb.Message) error {
		if m.Position == 10 {
			<-hold
		}
		return nil
	}, messagedb.StreamOptions{BatchSize: 5}, o)
	require.NoError(t, err)
	require.True(t, take(t, live))
	_, err = s.client.WriteMessage(t.Context(), "a-0", newMessage(1), messagedb.AnyVersion)
	require.NoError(t, err)
	_, err = s.client.Write(t.Context(), "a-0", newMessages(2, 8), 10)
	require.NoError(t, err)
	close(hold)
	require.False(t, take(t, live), "a full batch after it was live")
	require.True(t, take(t, live))
	sub.Stop()
	require.NoError(t, sub.Err())
	require.Empty(t, live)
}

// As in gomdb, when Liveness reports true, all messages written before have been handled.
func TestASubscriptionIsLiveWhenTheBacklogWasHandled(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 1, 3)
	for what, subscribe := range map[string]func(messagedb.Handler, messagedb.SubscriptionOptions) (*messagedb.Subscription, error){
		"stream": func(handle messagedb.Handler, o messagedb.SubscriptionOptions) (*messagedb.Subscription, error) {
			return s.client.SubscribeToStream(t.Context(), "a-0", handle, messagedb.StreamOptions{}, o)
		},
		"category": func(handle messagedb.Handler, o messagedb.SubscriptionOptions) (*messagedb.Subscription, error) {
			return s.client.SubscribeToCategory(t.Context(), "a", handle, messagedb.CategoryOptions{}, o)
		},
	} {
		var events []string // by one goroutine, until live is closed
		live := make(chan struct{})
		o := quick
		o.Liveness = func(is bool) {
			events = append(events, fmt.Sprint("live=", is))
			close(live)
		}
		sub, err := subscribe(func(_ context.Context, m *messagedb.Message) error {
			events = append(events, fmt.Sprint(m.Position))
			return nil
		}, o)
		require.NoError(t, err)
		<-live
		sub.Stop()
		require.NoError(t, sub.Err())
		require.Equal(t, []string{"0", "1", "2", "live=true"}, events, what)
	}
}

// A subscription that is stopped within a batch has not handled it, and does not say that it is live.
func TestAStoppedSubscriptionIsNotLive(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	fillCategory(t, s, "a", 1, 3)
	handling := make(chan struct{})
	o := quick
	o.Liveness = func(bool) { t.Error("told of liveness") }
	sub, err := s.client.SubscribeToStream(t.Context(), "a-0", func(ctx context.Context, _ *messagedb.Message) error {
		close(handling)
		<-ctx.Done()
		return nil
	}, messagedb.StreamOptions{}, o)
	require.NoError(t, err)
	<-handling
	sub.Stop()
	require.NoError(t, sub.Err())
}

// A closed pool never opens again: going on would be silence for ever.
func TestAClosedPoolDropsSubscriptionsAndConsumers(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	pool, err := pgxpool.NewWithConfig(t.Context(), s.config.Copy())
	require.NoError(t, err)
	client, err := messagedb.NewClient(pool, &messagedb.Config{Logger: quiet})
	require.NoError(t, err)
	live, dropped, ran := make(chan bool, 1), make(chan error, 1), make(chan error, 1)
	o := quick
	o.Liveness, o.Dropped = func(is bool) { live <- is }, func(err error) { dropped <- err }
	sub, err := client.SubscribeToStream(t.Context(), "a-1", sendTo(nil), messagedb.StreamOptions{}, o)
	require.NoError(t, err)
	consumer, err := client.NewConsumer(messagedb.ConsumerConfig{Category: "a", Identifier: "i", Handler: sendTo(nil), Polling: quick.Polling})
	require.NoError(t, err)
	go func() { ran <- consumer.Run(t.Context()) }()
	require.True(t, take(t, live))
	pool.Close()
	require.ErrorIs(t, take(t, dropped), puddle.ErrClosedPool)
	require.ErrorIs(t, sub.Err(), puddle.ErrClosedPool)
	require.ErrorIs(t, take(t, ran), puddle.ErrClosedPool)
}

func TestTransientErrorsAreRetriedAndReported(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	got, retried := make(chan *messagedb.Message, 10), make(chan error, 1000)
	o := quick
	o.Retried = func(err error) { retried <- err }
	sub, err := s.client.SubscribeToCategory(t.Context(), "a", sendTo(got), messagedb.CategoryOptions{}, o)
	require.NoError(t, err)
	for n := 1; n <= 3; n++ {
		// All connections die, again and again until the subscription was hit.
		for len(retried) < n {
			require.NoError(t, runAsAdmin(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+s.config.ConnConfig.Database+"'"))
		}
		require.Eventually(t, func() bool {
			_, err := s.client.WriteMessage(t.Context(), "a-1", newMessage(n), messagedb.AnyVersion, messagedb.Idempotent())
			return err == nil
		}, soon, 10*time.Millisecond)
		require.Equal(t, makeID(n), take(t, got).ID)
	}
	require.True(t, messagedb.IsTransient(take(t, retried)))
	sub.Stop()
	require.NoError(t, sub.Err())
	stats := sub.Stats()
	require.EqualValues(t, 3, stats.Handled)
	require.EqualValues(t, len(retried)+1, stats.Retried, "each that was told")
}

func TestAnErrorForGoodDropsTheSubscription(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	sub, err := s.client.SubscribeToCategory(t.Context(), "a", sendTo(nil), messagedb.CategoryOptions{Condition: "true"}, quick)
	require.NoError(t, err)
	require.ErrorAs(t, sub.Err(), new(*messagedb.ConditionDisabledError))
	sub, err = s.clientWith(t, messagedb.Config{Schema: "nowhere"}).SubscribeToStream(t.Context(), "a-1", sendTo(nil), messagedb.StreamOptions{}, quick)
	require.NoError(t, err)
	require.ErrorAs(t, sub.Err(), new(*messagedb.NotInstalledError))
}

func TestNotificationsWakeSubscriptions(t *testing.T) {
	hostile.NeedsDirect(t, "LISTEN is not heard")
	t.Parallel()
	s := newStore(t)
	loud := s.clientWith(t, messagedb.Config{Notify: true, Polling: messagedb.ConstantPolling(time.Hour)})
	got := make(chan *messagedb.Message, 10)
	var subs []*messagedb.Subscription
	live := make(chan bool, 10)
	for range 2 {
		sub, err := loud.SubscribeToCategory(t.Context(), "a", sendTo(got), messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{Notify: true, Liveness: func(l bool) { live <- l }})
		require.NoError(t, err)
		subs = append(subs, sub)
	}
	take(t, live)
	take(t, live)
	listening := func() (pid int) {
		require.Eventually(t, func() bool {
			return s.pool.QueryRow(t.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'").Scan(&pid) == nil
		}, soon, 10*time.Millisecond)
		return pid
	}
	first := listening()
	for n := 1; n <= 6; n++ {
		if n == 4 { // the listener's connection dies, and another takes its place
			_, err := s.pool.Exec(t.Context(), "SELECT pg_terminate_backend($1, 5000)", first)
			require.NoError(t, err)
		}
		tx, err := s.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = loud.WriteTx(t.Context(), tx, "a-1", newMessages(10*n, 10*n+n%2), messagedb.AnyVersion)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context()))
		for range 2 * (1 + n%2) {
			take(t, got)
		}
	}
	require.NotEqual(t, first, listening())
	for _, sub := range subs {
		sub.Stop()
		require.NoError(t, sub.Err())
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var n int
		require.NoError(c, s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'").Scan(&n))
		assert.Zero(c, n)
	}, soon, 10*time.Millisecond, "the last subscription takes the listener with it")
}

// If LISTEN is not possible, a subscription with notifications polls.
func TestWithoutNotificationsASubscriptionPolls(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	got := make(chan *messagedb.Message, 1)
	o := quick
	o.Notify = true
	sub, err := s.client.SubscribeToCategory(t.Context(), "a", sendTo(got), messagedb.CategoryOptions{}, o)
	require.NoError(t, err)
	_, err = s.client.WriteMessage(t.Context(), "a-1", newMessage(1), messagedb.AnyVersion) // this client does not notify
	require.NoError(t, err)
	take(t, got)
	sub.Stop()
	require.NoError(t, sub.Err())
}

func TestWhatCannotBeSubscribedTo(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // nothing is in it
	for want, try := range map[messagedb.Field]func() (*messagedb.Subscription, error){
		messagedb.FieldTx: func() (*messagedb.Subscription, error) {
			return s.client.InTx(tx).SubscribeToCategory(t.Context(), "a", sendTo(nil), messagedb.CategoryOptions{}, quick)
		},
		messagedb.FieldBatchSize: func() (*messagedb.Subscription, error) {
			return s.client.SubscribeToStream(t.Context(), "a-1", sendTo(nil), messagedb.StreamOptions{BatchSize: messagedb.Unlimited}, quick)
		},
		messagedb.FieldCategory: func() (*messagedb.Subscription, error) {
			return s.client.SubscribeToCategory(t.Context(), "a-1", sendTo(nil), messagedb.CategoryOptions{}, quick)
		},
		messagedb.FieldStreamID: func() (*messagedb.Subscription, error) {
			return s.client.SubscribeToStream(t.Context(), "a", sendTo(nil), messagedb.StreamOptions{}, quick)
		},
		messagedb.FieldHandler: func() (*messagedb.Subscription, error) {
			return s.client.SubscribeToCategory(t.Context(), "a", nil, messagedb.CategoryOptions{}, quick)
		},
		messagedb.FieldPolling: func() (*messagedb.Subscription, error) {
			return s.client.SubscribeToCategory(t.Context(), "a", sendTo(nil), messagedb.CategoryOptions{}, messagedb.SubscriptionOptions{Polling: func() messagedb.Polling { return nil }})
		},
	} {
		_, err := try()
		bad := new(messagedb.InvalidError)
		require.ErrorAs(t, err, &bad, want)
		require.Equal(t, want, bad.Field)
	}
}

// The basic property: however long transactions last, whatever categories they write and whether they commit, a subscription gets each message of its category
// once and in order.
func TestNoMessageOfACategoryIsEverSkipped(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		// Transactions that lock categories in opposite orders are many here; a second for each would be long.
		_, err := s.pool.Exec(t.Context(), "ALTER DATABASE "+s.config.ConnConfig.Database+" SET deadlock_timeout = '10ms'")
		require.NoError(t, err)
		s.pool.Reset()
		categories := []string{"a", "b", "c"}
		got := make([][]*messagedb.Message, len(categories))
		var counted atomic.Int64
		var subs []*messagedb.Subscription
		for i, category := range categories {
			sub, err := s.client.SubscribeToCategory(t.Context(), category, func(_ context.Context, m *messagedb.Message) error {
				got[i] = append(got[i], m)
				counted.Add(1)
				return nil
			}, messagedb.CategoryOptions{BatchSize: 1 + i*7}, messagedb.SubscriptionOptions{Polling: messagedb.ConstantPolling(time.Millisecond)})
			require.NoError(t, err)
			subs = append(subs, sub)
		}
		var committed atomic.Int64
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(w)))
				// Of many there may be deadlocks in most: as many are to come through on each machine.
				for round, mine := 0, 0; round < 40 || mine < 20; round++ {
					n, err := randomTransaction(t.Context(), s, r, categories)
					if err == nil {
						mine += n
						committed.Add(int64(n))
					} else if !messagedb.IsTransient(err) { // a deadlock between categories is
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		require.Greater(t, committed.Load(), int64(100))
		require.Eventually(t, func() bool { return counted.Load() >= committed.Load() }, soon, time.Millisecond)
		for i, sub := range subs {
			sub.Stop()
			require.NoError(t, sub.Err())
			all, err := s.client.ReadCategory(t.Context(), categories[i], messagedb.CategoryOptions{BatchSize: messagedb.Unlimited})
			require.NoError(t, err)
			require.Equal(t, all, got[i], categories[i])
		}
	})
}

// randomTransaction writes to some categories, with pauses, and commits more often than not.
func randomTransaction(ctx context.Context, s *store, r *rand.Rand, categories []string) (written int, err error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{})
	if err != nil {
		return 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it may have been committed
	for range 1 + r.IntN(3) {
		stream := messagedb.StreamName(fmt.Sprintf("%s-%d", categories[r.IntN(len(categories))], r.IntN(5)))
		ms := make([]messagedb.ProposedMessage, 1+r.IntN(3))
		for i := range ms {
			ms[i] = messagedb.ProposedMessage{Type: "T", Data: i}
		}
		if _, err := s.client.WriteTx(ctx, tx, stream, ms, messagedb.AnyVersion); err != nil {
			return 0, err
		}
		written += len(ms)
		time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
	}
	if r.IntN(5) == 0 {
		return 0, nil
	}
	return written, tx.Commit(ctx)
}
