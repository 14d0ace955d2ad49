package activities

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
)

const (
	// rateShare is the part of a second for which calls are reserved at once, which saves statements, and for which calls
	// wait with a reservation. A client that stops loses no more than those calls.
	rateShare = 0.1
	// spareTime is how long a call that was given back may begin.
	spareTime = time.Second
)

// RateLimit bounds how many calls of Work of a kind, or in a namespace, begin in a second, for all clients together:
// Postgres has the time at which the next may begin. A nil RateLimit bounds nothing. Create it with [NewRateLimit] or
// [NewNamespaceRateLimit].
type RateLimit struct {
	// what names the limit in errors. ask reserves calls for a duration, and returns the time until the first of them
	// may begin.
	what string
	ask  func(ctx context.Context, d time.Duration) (time.Duration, error)
	rate float64
	// turns has an entry for each call that waits with a reservation. Others wait for a turn, in their order.
	turns chan struct{}

	mu sync.Mutex
	// left counts reserved calls that nobody waits for; next is when the next of them may begin.
	left int
	next time.Time
	// spare counts calls that were given back. They may begin until spareUntil.
	spare      int
	spareUntil time.Time
}

// newRateLimit returns a limit of rate calls a second; nil if rate is 0.
func newRateLimit(what string, rate float64, ask func(context.Context, time.Duration) (time.Duration, error)) *RateLimit {
	if rate <= 0 {
		return nil
	}
	l := &RateLimit{what: what, ask: ask, rate: rate}
	l.turns = make(chan struct{}, l.share())
	return l
}

// NewRateLimit returns a limit of rate calls a second for a kind; nil if rate is 0.
func NewRateLimit(pool *pgxpool.Pool, kind string, rate float64) *RateLimit {
	return newRateLimit("kind "+kind, rate, func(ctx context.Context, d time.Duration) (time.Duration, error) {
		return db.New().ReserveCalls(ctx, pool, db.ReserveCallsParams{Kind: kind, For: d})
	})
}

// NewNamespaceRateLimit is [NewRateLimit] for a namespace.
func NewNamespaceRateLimit(pool *pgxpool.Pool, namespace string, rate float64) *RateLimit {
	return newRateLimit("namespace "+namespace, rate, func(ctx context.Context, d time.Duration) (time.Duration, error) {
		return db.New().ReserveNamespaceCalls(ctx, pool, db.ReserveNamespaceCallsParams{Namespace: namespace, For: d})
	})
}

// Rate returns how many calls may begin in a second; 0 for no bound.
func (l *RateLimit) Rate() float64 {
	if l == nil {
		return 0
	}
	return l.rate
}

// Wait returns when a call may begin, or with the error of ctx. No call begins while Postgres cannot be reached.
func (l *RateLimit) Wait(ctx context.Context) error {
	if l == nil {
		return nil
	}
	select {
	case l.turns <- struct{}{}:
		defer func() { <-l.turns }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ctx.Err() != nil { // both were ready: reserve nothing
		return context.Cause(ctx)
	}
	at, err := l.reserveCall(ctx)
	if err != nil {
		return err
	}
	if wait := time.Until(at); wait > 0 && !sleep(ctx, wait) {
		return context.Cause(ctx)
	}
	return nil
}

// share returns how many calls may begin in rateShare: at least one.
func (l *RateLimit) share() int { return max(int(math.Floor(l.rate*rateShare)), 1) }

// giveBack lets another call begin in place of one that has waited and does not begin.
func (l *RateLimit) giveBack() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare, l.spareUntil = l.spare+1, time.Now().Add(spareTime)
}

// reserveCall returns when a call may begin. Only one caller at a time asks Postgres, for several calls.
func (l *RateLimit) reserveCall(ctx context.Context) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.spare > 0 && now.Before(l.spareUntil) {
		l.spare--
		return now, nil
	}
	l.spare = 0
	every := time.Duration(float64(time.Second) / l.rate)
	if l.left == 0 {
		n := l.share()
		var wait time.Duration
		err := retryTransient(ctx, writeTries, func(ctx context.Context) (err error) {
			wait, err = l.ask(ctx, time.Duration(n)*every)
			return err
		})
		if err != nil {
			return time.Time{}, fmt.Errorf("reserving calls of %s: %w", l.what, err)
		}
		l.left, l.next = n, time.Now().Add(wait) // from the answer: the question may have waited for a connection
	}
	at := l.next
	l.left--
	l.next = l.next.Add(every)
	return at, nil
}
