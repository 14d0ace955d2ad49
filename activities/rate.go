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

// rateShare is the part of a second for which calls are reserved at once: that saves statements, and a client that
// stops loses no more than those calls.
const rateShare = 0.1

// RateLimit bounds how many calls of Work of a kind, or in a namespace, begin in a second, for all clients together:
// Postgres has the time at which the next may begin. A nil RateLimit bounds nothing. Create it with [NewRateLimit] or
// [NewNamespaceRateLimit].
type RateLimit struct {
	// what names the limit in errors. ask reserves calls for a duration, and returns the time until the first of them
	// may begin.
	what string
	ask  func(ctx context.Context, d time.Duration) (time.Duration, error)
	rate float64

	mu sync.Mutex
	// left counts reserved calls that have not begun; next is when the next of them may.
	left int
	next time.Time
}

// NewRateLimit returns a limit of rate calls a second for a kind; nil if rate is 0.
func NewRateLimit(pool *pgxpool.Pool, kind string, rate float64) *RateLimit {
	if rate <= 0 {
		return nil
	}
	return &RateLimit{what: "kind " + kind, rate: rate, ask: func(ctx context.Context, d time.Duration) (time.Duration, error) {
		return db.New().ReserveCalls(ctx, pool, db.ReserveCallsParams{Kind: kind, For: d})
	}}
}

// NewNamespaceRateLimit is [NewRateLimit] for a namespace.
func NewNamespaceRateLimit(pool *pgxpool.Pool, namespace string, rate float64) *RateLimit {
	if rate <= 0 {
		return nil
	}
	return &RateLimit{what: "namespace " + namespace, rate: rate, ask: func(ctx context.Context, d time.Duration) (time.Duration, error) {
		return db.New().ReserveNamespaceCalls(ctx, pool, db.ReserveNamespaceCallsParams{Namespace: namespace, For: d})
	}}
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
	at, err := l.reserveCall(ctx)
	if err != nil {
		return err
	}
	if wait := time.Until(at); wait > 0 && !sleep(ctx, wait) {
		return context.Cause(ctx)
	}
	return nil
}

// reserveCall returns when a call may begin. Only one caller at a time asks Postgres, for several calls.
func (l *RateLimit) reserveCall(ctx context.Context) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	every := time.Duration(float64(time.Second) / l.rate)
	if l.left == 0 {
		n := max(int(math.Floor(l.rate*rateShare)), 1)
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
