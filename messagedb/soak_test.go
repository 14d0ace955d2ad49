package messagedb_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

const (
	soakMessages = 4000 // written at least
	soakWriters  = 8
	soakStreams  = 64
	soakMembers  = 4
	soakInterval = 50
)

// audit has the messages that one group has handled, in order.
type audit struct {
	mu         sync.Mutex
	next       map[messagedb.StreamName]int64 // the first position that was not handled
	handled    int64
	duplicates int64
	disorder   []string
}

func (a *audit) handle(_ context.Context, m *messagedb.Message) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handled++
	switch next := a.next[m.Stream]; {
	case m.Position == next:
		a.next[m.Stream]++
	case m.Position < next:
		a.duplicates++
	default:
		a.disorder = append(a.disorder, fmt.Sprintf("%s: %d came where %d was next", m.Stream, m.Position, next))
	}
	return nil
}

func (a *audit) countDistinct() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, next := range a.next {
		n += next
	}
	return n
}

// Members of groups die and come back while messages are written. Each group handles every message, those of a stream in order,
// and for each death at most a position interval of messages, and the one before it, again.
func TestSoakOfGroupsWhoseMembersDie(t *testing.T) {
	long := soak.Time(t, 0)
	t.Parallel()
	s := newStore(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	groups := []string{"one", "two"}
	audits := map[string]*audit{}
	stop, written := make(chan struct{}), make(chan struct{})
	var members, writers sync.WaitGroup
	var deaths, total atomic.Int64
	began := time.Now()
	for g, name := range groups {
		a := &audit{next: map[messagedb.StreamName]int64{}}
		audits[name] = a
		for member := range soakMembers {
			members.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(100+g*soakMembers+member)))
				config := messagedb.ConsumerConfig{
					Category: "soak", Identifier: name, Group: &messagedb.Group{Member: member, Size: soakMembers},
					PositionInterval: soakInterval, Handler: a.handle, Polling: messagedb.IdlePolling(10 * time.Millisecond),
				}
				for runLives(t, s, config, r, stop, written, &deaths) {
				}
			})
		}
	}
	for w := range soakWriters {
		writers.Go(func() {
			total.Add(soakWriter(t, s, rand.New(rand.NewPCG(seed, uint64(w))), soakMessages/soakWriters, began.Add(long)))
		})
	}
	writers.Wait()
	close(written)
	wrote := time.Since(began)
	require.Eventually(t, func() bool {
		return audits["one"].countDistinct() >= total.Load() && audits["two"].countDistinct() >= total.Load()
	}, 2*time.Minute, 20*time.Millisecond, "not all messages were handled")
	close(stop)
	members.Wait()
	var duplicates int64
	for name, a := range audits {
		require.Equal(t, total.Load(), a.countDistinct(), name)
		require.Empty(t, a.disorder, name)
		duplicates += a.duplicates
	}
	require.LessOrEqual(t, duplicates, deaths.Load()*(soakInterval+1))
	require.Positive(t, deaths.Load())
	t.Logf("%d messages written in %v, handled by %d groups in %v; %d deaths, %d duplicates (at most %d)",
		total.Load(), wrote.Round(time.Millisecond), len(groups), time.Since(began).Round(time.Millisecond), deaths.Load(), duplicates, deaths.Load()*(soakInterval+1))
}

// runLives runs a member until it dies or the test ends, and reports whether the member is restarted.
func runLives(t *testing.T, s *store, config messagedb.ConsumerConfig, r *rand.Rand, over, written <-chan struct{}, deaths *atomic.Int64) bool {
	c, err := s.client.NewConsumer(config)
	if err != nil {
		t.Error(err)
		return false
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	again := true
	death := time.After(time.Duration(50+r.IntN(700)) * time.Millisecond)
	select {
	case <-written:
		// On a slow machine a life may be too short to save a position, so there are few deaths more.
		if deaths.Load() >= 2*soakMembers {
			death = nil
		}
	default:
	}
	quit := c.Kill
	select {
	case <-death:
		deaths.Add(1)
	case <-over:
		again = false
		quit = func() {
			if err := c.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	for {
		quit()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
				return false
			}
			return again
		case <-time.After(20 * time.Millisecond): // Run had not begun, and was told nothing
		}
	}
}

// soakWriter writes single messages, several at once, and transactions.
func soakWriter(t *testing.T, s *store, r *rand.Rand, least int, until time.Time) (written int64) {
	for count := least; count > 0 || time.Now().Before(until); {
		stream := messagedb.StreamName(fmt.Sprintf("soak-%d", r.IntN(soakStreams)))
		ms := make([]messagedb.ProposedMessage, 1+r.IntN(5))
		for i := range ms {
			ms[i] = messagedb.ProposedMessage{Type: "T", Data: map[string]int{"left": count - i}}
		}
		write := func(tx pgx.Tx) error {
			_, err := s.client.WriteTx(context.Background(), tx, stream, ms, messagedb.AnyVersion)
			time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond) // the others wait
			return err
		}
		var err error
		if r.IntN(32) == 0 {
			err = pgx.BeginFunc(context.Background(), s.pool, write)
		} else {
			_, err = s.client.Write(context.Background(), stream, ms, messagedb.AnyVersion)
		}
		if err != nil {
			t.Error(err)
			return written
		}
		count -= len(ms)
		written += int64(len(ms))
	}
	return written
}
