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
	// whole database, so not every inform does.
	notifyEvery   = 20 * time.Millisecond
	notifyTimeout = 5 * time.Second
)

// notifier tells other clients that there is something to dispatch. It is a hint: they find it in any case, a little
// later. An inform that comes alone notifies by itself, in its own statement; those that follow at once are told
// together, by a goroutine that is there only while there is something to tell.
type notifier struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu      sync.Mutex
	last    time.Time
	kinds   map[string]struct{}
	running bool
	idle    sync.WaitGroup
}

// lead tells whether an inform shall notify by itself.
func (n *notifier) lead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running || time.Since(n.last) < notifyEvery {
		return false
	}
	n.last = time.Now()
	return true
}

// follow has a kind told soon.
func (n *notifier) follow(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kinds == nil {
		n.kinds = map[string]struct{}{}
	}
	n.kinds[kind] = struct{}{}
	if !n.running {
		n.running = true
		n.idle.Go(n.run)
	}
}

func (n *notifier) run() {
	for {
		time.Sleep(notifyEvery)
		n.mu.Lock()
		kinds := slices.Sorted(maps.Keys(n.kinds))
		clear(n.kinds)
		n.running = len(kinds) > 0
		n.last = time.Now()
		n.mu.Unlock()
		if len(kinds) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
		if err := db.New().Notify(ctx, n.pool, kinds); err != nil {
			n.log.Info("cannot notify other clients; they will look by themselves", "kinds", kinds, "error", err)
		}
		cancel()
	}
}

// wait returns when everything has been told.
func (n *notifier) wait() { n.idle.Wait() }
