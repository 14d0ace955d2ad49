package activities

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/db"
)

// HeartbeatTimeout is how long a worker may be silent before Temporal gives an attempt or a pass to another one, unless
// the kind sets it. A claim lasts claimPeriods times as long.
const HeartbeatTimeout = 10 * time.Second

const (
	// claimPeriods is how many heartbeat timeouts a claim lasts without a renewal.
	claimPeriods = 2
	// claimCheckInterval is how often open claims are checked. Most are closed before they need a renewal.
	claimCheckInterval = 250 * time.Millisecond
	// claimShare divides the time of a claim: after one share it is renewed, and the rows of its running calls are
	// read.
	claimShare = 5
)

var (
	// errClaimLost ends the context of Work when others may claim its row.
	errClaimLost = errors.New("the claim was lost: another worker has the resource, or may have it, because Postgres was not reached in time")
	// errDeleted ends the context of Work when a command has deleted its resource.
	errDeleted = errors.New("the resource was deleted")
)

// Claims are the open claims of one client. They are renewed while Work runs; when one is lost, the context of Work
// ends. A goroutine runs while there are claims. Create it with [NewClaims].
type Claims struct {
	pool *pgxpool.Pool
	log  *slog.Logger

	mu   sync.Mutex
	open map[*claim]struct{}
	// isRunning reports whether the goroutine runs.
	isRunning bool
	// retryAfter is the time until which a database that did not answer is not asked again.
	retryAfter time.Time
	// isRenewing reports whether a renewal is under way, so that a database that does not answer is not asked twice at
	// once.
	isRenewing bool
	// written counts the goroutines that outlive their executions, to write outcomes or to end local attempts.
	written sync.WaitGroup
}

// claim is the right of one execution to call Work for the rows that it has claimed. Its id fences what is written.
type claim struct {
	claims *Claims
	claimOwner
	id string
	// period is how long the claim lasts without a renewal.
	period time.Duration

	mu sync.Mutex
	// holders counts the execution, and calls that outlive their outcome.
	holders int
	// renewed is when the latest statement began that claimed rows or renewed the claim.
	renewed time.Time
	wasLost bool
	// running are the calls of Work, by row. A call for many rows has an entry for each.
	running map[int64]call
}

// claimOwner is the workflow that an execution with a claim belongs to.
type claimOwner struct{ kind, workflowID string }

// call is a call of Work that can be ended.
type call struct {
	end context.CancelCauseFunc
	// many reports whether the call is for many rows: it does not end because of one.
	many bool
}

// claimPeriod returns how long a claim lasts without a renewal: after that, another worker may take its rows.
func (a *Activities) claimPeriod() time.Duration {
	return claimPeriods * cmp.Or(a.HeartbeatTimeout, HeartbeatTimeout)
}

// NewClaims returns a set without claims.
func NewClaims(pool *pgxpool.Pool, log *slog.Logger) *Claims {
	return &Claims{pool: pool, log: log, open: map[*claim]struct{}{}}
}

// beginClaim makes a claim for an execution. On nil, as in tests, the claim is never renewed.
func (c *Claims) beginClaim(owner claimOwner, period time.Duration) *claim {
	k := &claim{claims: c, claimOwner: owner, id: uuid.NewString(), period: period, holders: 1, renewed: time.Now(), running: map[int64]call{}}
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open[k] = struct{}{}
		if !c.isRunning {
			c.isRunning = true
			go c.run()
		}
	}
	return k
}

// retain keeps the claim renewed until one more call of release.
func (k *claim) retain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders++
}

func (k *claim) release() {
	k.mu.Lock()
	k.holders--
	last := k.holders == 0
	k.mu.Unlock()
	if last && k.claims != nil {
		k.claims.mu.Lock()
		defer k.claims.mu.Unlock()
		delete(k.claims.open, k)
	}
}

// registerCall registers a call of Work for rows. It calls end, with the reason, when the call should stop: at once if
// the claim is lost already.
func (k *claim) registerCall(ids []int64, end context.CancelCauseFunc) (done func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wasLost {
		end(errClaimLost)
	}
	for _, id := range ids {
		k.running[id] = call{end: end, many: len(ids) > 1}
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, id := range ids {
			delete(k.running, id)
		}
	}
}

// isLost reports whether others may have claimed the rows. It checks the clock itself, because on a busy machine the
// goroutine that renews claims may be late.
func (k *claim) isLost() bool {
	if k.claims != nil {
		k.loseIfLate(time.Now())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wasLost
}

// loseIfLate marks the claim lost if it was not renewed in time: a sixth of its time before others may claim.
func (k *claim) loseIfLate(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wasLost || now.Sub(k.renewed) < k.period*5/6 {
		return
	}
	k.wasLost = true
	for _, running := range k.running {
		running.end(errClaimLost)
	}
}

func (k *claim) isDue(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return now.Sub(k.renewed) >= k.period/claimShare
}

// run renews the claims until there are none.
func (c *Claims) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(claimCheckInterval)
	defer tick.Stop()
	var looks sync.WaitGroup
	defer looks.Wait()
	for now := range tick.C {
		c.mu.Lock()
		if len(c.open) == 0 {
			c.isRunning = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if due := c.takeDue(now); len(due) > 0 {
			looks.Go(func() { c.renewDue(ctx, due) })
		}
	}
}

// takeDue ends claims that were not renewed in time, and returns those to renew, by their period.
func (c *Claims) takeDue(now time.Time) map[time.Duration][]*claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := map[time.Duration][]*claim{}
	for k := range c.open {
		k.loseIfLate(now)
		if !c.isRenewing && now.After(c.retryAfter) && k.isDue(now) {
			due[k.period] = append(due[k.period], k)
		}
	}
	c.isRenewing = c.isRenewing || len(due) > 0
	return due
}

// renewDue renews claims, and ends calls of Work that lost theirs.
func (c *Claims) renewDue(ctx context.Context, due map[time.Duration][]*claim) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.isRenewing = false
	}()
	for _, period := range slices.Sorted(maps.Keys(due)) {
		if err := c.renewClaims(ctx, period, due[period]); err != nil && ctx.Err() == nil {
			c.mu.Lock()
			c.retryAfter = time.Now().Add(period / (2 * claimShare))
			c.mu.Unlock()
			c.logUnrenewed(due[period], err)
		}
	}
}

// logUnrenewed logs for each kind how many claims could not be renewed, and names one of their workflows.
func (c *Claims) logUnrenewed(unrenewed []*claim, err error) {
	byKind := map[string][]*claim{}
	for _, k := range unrenewed {
		byKind[k.kind] = append(byKind[k.kind], k)
	}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		c.log.Warn("renewing claims failed; it is tried again until they are over, and then the context of Work, or Finalize, ends",
			"kind", kind, "workflow_id", byKind[kind][0].workflowID, "claims", len(byKind[kind]), "error", err)
	}
}

// renewClaims renews claims of one period, and ends the calls that have lost their rows.
func (c *Claims) renewClaims(ctx context.Context, period time.Duration, due []*claim) error {
	ctx, cancel := context.WithTimeout(ctx, period/2)
	defer cancel()
	began := time.Now()
	claims := make([]string, len(due))
	var ids []int64
	var of []string
	// Two claims of one client may have had the same row, one after the other.
	type rowOf struct {
		id    int64
		claim string
	}
	calls := map[rowOf]call{}
	for i, k := range due {
		claims[i] = k.id
		k.mu.Lock()
		for id, running := range k.running {
			ids, of = append(ids, id), append(of, k.id)
			calls[rowOf{id, k.id}] = running
		}
		k.mu.Unlock()
	}
	if err := db.New().RenewClaims(ctx, c.pool, db.RenewClaimsParams{Claims: claims, ClaimFor: period}); err != nil {
		return err
	}
	for _, k := range due {
		k.mu.Lock()
		k.renewed = began
		k.mu.Unlock()
	}
	if len(ids) == 0 {
		return nil
	}
	lost, err := db.New().LostClaims(ctx, c.pool, db.LostClaimsParams{Ids: ids, Claims: of})
	for _, row := range lost {
		running := calls[rowOf{row.ID, row.Claim}]
		switch {
		case !row.Deleted:
			running.end(errClaimLost)
		case !running.many:
			running.end(errDeleted)
		}
	}
	return err
}

// runBeside runs a function that outlives its execution.
func (c *Claims) runBeside(do func()) {
	if c == nil {
		go do()
		return
	}
	c.written.Go(do)
}

// Wait returns when all functions have returned that outlive their executions: their outcomes are written, or given up.
func (c *Claims) Wait() { c.written.Wait() }
