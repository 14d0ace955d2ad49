package delta

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/worker"

	"github.com/chariot-giving/delta/internal/backoff"
)

const (
	// gateTimeout is how long Postgres may take to answer a ping.
	gateTimeout = 2 * time.Second
	// gateShortest and gateLongest bound the pause between two pings. It grows only to a second, because this client does
	// no work while the gate is closed.
	gateShortest, gateLongest = 250 * time.Millisecond, time.Second
	// gatePatience is how long Postgres must be away before that is logged.
	gatePatience = time.Second
)

// postgresGate keeps the workers of a client from taking tasks while the client cannot reach Postgres. Other clients may
// reach it, but each task that this client takes fails, and Temporal waits ever longer before it gives the task to a worker
// again. A worker whose tasks fail at once always has a free slot, so it would take more than its share.
type postgresGate struct {
	pool *pgxpool.Pool
	log  *slog.Logger
	// stopping ends with the client.
	stopping context.Context //nolint:containedctx // it is the client's life, not a call's

	mu sync.Mutex
	// closed is nil while the gate is open, and is closed when it opens.
	closed chan struct{}
}

// closeUntilAnswered closes the gate until Postgres answers, after a statement failed for a reason that may be the
// connection.
func (g *postgresGate) closeUntilAnswered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return
	}
	g.closed = make(chan struct{})
	go g.openWhenAnswered(g.closed)
}

// openWhenAnswered pings Postgres until it answers, and opens the gate.
func (g *postgresGate) openWhenAnswered(closed chan struct{}) {
	began, isLogged := time.Now(), false
	pauses := backoff.New(gateShortest, gateLongest) // spread, because all clients would ping the server at once otherwise
	for !g.isAnswering() && g.stopping.Err() == nil {
		if !isLogged && time.Since(began) > gatePatience {
			isLogged = true
			g.log.Warn("Postgres is not reached: this client takes no tasks until it is, and leaves them to others")
		}
		_ = backoff.Pause(g.stopping, pauses.Delay()) // the loop looks at the context
	}
	if isLogged && g.stopping.Err() == nil {
		g.log.Info("Postgres is reached again: this client takes tasks", "away", time.Since(began))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = nil
	close(closed)
}

func (g *postgresGate) isAnswering() bool {
	ctx, cancel := context.WithTimeout(g.stopping, gateTimeout)
	defer cancel()
	return g.pool.Ping(ctx) == nil
}

// isOpen reports whether tasks may be taken. Otherwise opened is closed when they may be again.
func (g *postgresGate) isOpen() (opened <-chan struct{}, open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed, g.closed == nil
}

// gatedSlots are the slots of a worker behind the gate. A poll in progress when the gate closes may still bring one task.
type gatedSlots struct {
	worker.SlotSupplier
	gate *postgresGate
}

// ReserveSlot waits until the gate is open, and for a slot.
func (s gatedSlots) ReserveSlot(ctx context.Context, info worker.SlotReservationInfo) (*worker.SlotPermit, error) {
	for {
		opened, open := s.gate.isOpen()
		if open {
			return s.SlotSupplier.ReserveSlot(ctx, info)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-opened:
		}
	}
}

// TryReserveSlot gives no slot for an eager task while the gate is closed.
func (s gatedSlots) TryReserveSlot(info worker.SlotReservationInfo) *worker.SlotPermit {
	if _, open := s.gate.isOpen(); !open {
		return nil
	}
	return s.SlotSupplier.TryReserveSlot(info)
}
