package delta

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
)

const (
	// notifyEvery is the least time between two notifications of a client. A commit that notifies takes a lock of the whole
	// database, so not every inform does.
	notifyEvery = 20 * time.Millisecond
	// notifyLaterEvery is the least time between two that only matter if the others have more room.
	notifyLaterEvery = 250 * time.Millisecond
	notifyTimeout    = 5 * time.Second
)

// notifier notifies other clients of due rows. A notification is a hint: they find the rows anyway, a little later. A lone
// inform notifies in its own statement. The kinds of informs that follow at once are notified together, by a goroutine that
// runs only while there are any.
type notifier struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu    sync.Mutex
	last  time.Time
	kinds map[string]struct{}
	// later has a timer for each kind that will be notified later.
	later map[string]*time.Timer
	// round is closed when the current round has ended; nil if there is none.
	round chan struct{}
}

// takeNotify reports whether an inform shall notify in its own statement.
func (n *notifier) takeNotify() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.round != nil || time.Since(n.last) < notifyEvery {
		return false
	}
	n.last = time.Now()
	return true
}

// notifySoon notifies others of a kind in the next round.
func (n *notifier) notifySoon(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kinds == nil {
		n.kinds = map[string]struct{}{}
	}
	n.kinds[kind] = struct{}{}
	if n.round == nil {
		n.beginRound()
	}
}

// notifyLater notifies others of a kind, seldom.
func (n *notifier) notifyLater(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.later[kind] != nil {
		return
	}
	if n.later == nil {
		n.later = map[string]*time.Timer{}
	}
	n.later[kind] = time.AfterFunc(notifyLaterEvery, func() {
		n.mu.Lock()
		delete(n.later, kind)
		n.mu.Unlock()
		n.notifySoon(kind)
	})
}

// beginRound begins a round. The lock is held.
func (n *notifier) beginRound() {
	sent := make(chan struct{})
	n.round = sent
	go func() {
		defer close(sent)
		n.notifyKinds()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.round = nil; len(n.kinds) > 0 {
			n.beginRound()
		}
	}()
}

func (n *notifier) notifyKinds() {
	time.Sleep(notifyEvery)
	n.mu.Lock()
	kinds := slices.Sorted(maps.Keys(n.kinds))
	clear(n.kinds)
	n.last = time.Now()
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
	defer cancel()
	if err := db.New().Notify(ctx, n.pool, kinds); err != nil {
		n.log.Info("cannot notify other clients; they will look by themselves", "kinds", kinds, "error", err)
	}
}

// wait returns when all earlier notifications were sent: by the current round, or by the next.
func (n *notifier) wait() {
	n.mu.Lock()
	var later []string
	for kind, timer := range n.later {
		if timer.Stop() {
			delete(n.later, kind)
			later = append(later, kind)
		}
	}
	n.mu.Unlock()
	for _, kind := range later {
		n.notifySoon(kind)
	}
	for range 2 {
		n.mu.Lock()
		sent := n.round
		n.mu.Unlock()
		if sent == nil {
			return
		}
		<-sent
	}
}
