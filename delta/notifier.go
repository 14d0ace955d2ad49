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
	// notifyEvery is the least time between two notifications of a client. A commit that notifies takes a lock of the
	// whole database, so they are sent beside the informs and not with each of them.
	notifyEvery   = 20 * time.Millisecond
	notifyTimeout = 5 * time.Second
)

// notifier tells other clients that there is something to dispatch. It is a hint: they find it in any case, a little
// later. It has a goroutine only while there is something to tell.
type notifier struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu      sync.Mutex
	kinds   map[string]struct{}
	running bool
	idle    sync.WaitGroup
}

func (n *notifier) notify(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kinds == nil {
		n.kinds = map[string]struct{}{}
	}
	n.kinds[kind] = struct{}{}
	if !n.running {
		n.running = true
		n.idle.Add(1)
		go n.run()
	}
}

func (n *notifier) run() {
	defer n.idle.Done()
	for {
		n.mu.Lock()
		kinds := slices.Sorted(maps.Keys(n.kinds))
		clear(n.kinds)
		n.running = len(kinds) > 0
		n.mu.Unlock()
		if len(kinds) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
		if err := db.New().Notify(ctx, n.pool, kinds); err != nil {
			n.log.Warn("cannot notify other clients; they will look by themselves", "kinds", kinds, "error", err)
		}
		cancel()
		time.Sleep(notifyEvery)
	}
}

// wait returns when everything has been told.
func (n *notifier) wait() { n.idle.Wait() }
