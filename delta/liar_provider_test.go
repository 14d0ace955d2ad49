package delta_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/chariot-giving/delta/delta"
)

// liedRecords is the maximum number of records in an account.
const liedRecords = 15

// lied is a record as the provider reports it, which may be wrong.
type lied struct {
	Key, Account string
	Rev          int64
}

func (l lied) ID() string      { return l.Key }
func (l lied) Revision() int64 { return l.Rev }

// truth is a record as it really is.
type truth struct {
	lied
	alive bool
	// seq is the sequence number of the latest change, and at its approximate time: incremental listings use them.
	seq int64
	at  time.Time
}

// liar is a provider whose listings and webhooks lie until it becomes honest.
type liar struct {
	mu       sync.Mutex
	rand     *rand.Rand
	honest   bool
	accounts []string
	all      map[string]*truth
	// late are changes that listings do not have yet.
	late map[string]bool
	seq  int64
	// omitted are records that a complete listing has omitted since Work was last called for them: Delta may take them for gone.
	omitted map[string]bool
	// leftOut are records that a complete listing has omitted since a command deleted them: their rows may be removed, so a listing may bring them
	// back.
	leftOut map[string]bool
}

func newLiar(seed uint64) *liar {
	l := &liar{rand: rand.New(rand.NewPCG(seed, 0)), all: map[string]*truth{}, late: map[string]bool{}, omitted: map[string]bool{}, leftOut: map[string]bool{}}
	for i := range 4 {
		l.accounts = append(l.accounts, fmt.Sprint("acct_", i))
	}
	return l
}

// oneIn returns true once in a number of times, while the liar lies.
func (l *liar) oneIn(in int) bool { return !l.honest && l.rand.IntN(in) == 0 }

// randomBelow returns a random number below most. It is safe for concurrent use.
func (l *liar) randomBelow(most int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rand.IntN(most)
}

// isLying reports whether the liar is not honest yet.
func (l *liar) isLying() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.honest
}

// change changes, creates or removes a record, and returns the webhook's report of it; alive is false for a removed one.
func (l *liar) change() (told lied, alive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	account := l.accounts[l.rand.IntN(len(l.accounts))]
	id := fmt.Sprintf("%s/r%d", account, l.rand.IntN(liedRecords))
	r := l.all[id]
	if r == nil {
		r = &truth{lied: lied{Key: id, Account: account}}
		l.all[id] = r
	}
	l.seq++
	r.Rev, r.seq, r.at = r.Rev+1, l.seq, time.Now().Add(-time.Duration(l.rand.Int64N(int64(liedOverlap/2))))
	r.alive = !r.alive || l.rand.IntN(3) > 0
	l.late[id] = l.oneIn(4)
	return r.lied, r.alive
}

// get returns a record as it is.
func (l *liar) get(id string) (r truth, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.all[id]
	if found == nil {
		return truth{}, false
	}
	return *found, true
}

func (l *liar) tellTheTruth() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.honest, l.late = true, map[string]bool{}
}

// allRecords returns all records as they are.
func (l *liar) allRecords() (all []truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.all {
		all = append(all, *r)
	}
	return all
}

// shards names the accounts. While lying, it may fail or omit one.
func (l *liar) shards() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	named := slices.Clone(l.accounts)
	if l.oneIn(8) {
		return nil, errors.New("the accounts cannot be listed")
	}
	if l.oneIn(8) {
		at := l.rand.IntN(len(named))
		named = slices.Delete(named, at, at+1)
	}
	return named, nil
}

// page is the result of a listing, with the position that it reaches; breaks says after how many records it breaks off, and how.
type page struct {
	records  []lied
	position int64
	breaks   int
	how      int
}

// How a listing breaks off. A hanging one ends with its context, and returns as if it were complete, like a careless List.
const (
	breaksFailing = iota
	breaksPanicking
	breaksHanging
)

// list returns the listing of an account or of all: changes since a time or position, or everything.
func (l *liar) list(account string, everything bool, isNew func(*truth) bool) page {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := page{position: l.seq, breaks: -1}
	if l.oneIn(7) {
		l.noteOmitted(account, everything, p) // an empty listing, or nothing new
		return p
	}
	forgetful := everything && l.oneIn(4)
	for id, r := range l.all {
		if (account != "" && r.Account != account) || !r.alive || (!everything && !isNew(r)) {
			continue
		}
		if l.late[id] {
			l.late[id] = !l.oneIn(3)
			continue
		}
		if forgetful && l.oneIn(8) {
			continue // it appears again later
		}
		told := r.lied
		if told.Rev > 1 && l.oneIn(6) {
			told.Rev-- // from a lagging replica
		}
		p.records = append(p.records, told)
		for l.oneIn(5) {
			p.records = append(p.records, told)
		}
	}
	l.rand.Shuffle(len(p.records), func(i, j int) { p.records[i], p.records[j] = p.records[j], p.records[i] })
	if l.oneIn(4) {
		p.breaks, p.how = l.breakOff(len(p.records)), []int{breaksFailing, breaksFailing, breaksPanicking, breaksHanging}[l.rand.IntN(4)]
	}
	l.noteOmitted(account, everything, p)
	return p
}

// breakOff returns after how many records a listing breaks off. Half of them break off near the end, so that the omitted rest is small enough to be
// deleted without an approval, if the listing were taken for complete.
func (l *liar) breakOff(records int) int {
	if l.oneIn(2) {
		return max(records-1-l.rand.IntN(liedMaxDeleted), 0)
	}
	return l.rand.IntN(records + 1)
}

// noteOmitted notes the records that a complete listing omits.
func (l *liar) noteOmitted(account string, everything bool, p page) {
	if !everything || (p.breaks >= 0 && p.breaks < len(p.records)) {
		return
	}
	told := map[string]bool{}
	for _, r := range p.records {
		told[r.Key] = true
	}
	for id, r := range l.all {
		if (account == "" || r.Account == account) && !told[id] {
			l.omitted[id], l.leftOut[id] = true, true
		}
	}
}

// noteWorked notes that Work was called for a record.
func (l *liar) noteWorked(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.omitted[id] = false
}

// noteDeleted notes that a command has deleted a record.
func (l *liar) noteDeleted(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leftOut[id] = false
}

// mayComeBack reports whether a listing has omitted a record since a command deleted it.
func (l *liar) mayComeBack(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leftOut[id]
}

// mayBeGone reports whether Delta may take a record for gone because of a listing.
func (l *liar) mayBeGone(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.omitted[id]
}

// listFrom yields the records that the options choose as objects of a kind: since a time, if it is timed, or since its own position.
func listFrom[T delta.Object](ctx context.Context, l *liar, isTimed bool, opts *delta.InformOptions, as func(lied) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		after, _ := strconv.ParseInt(opts.Cursor, 10, 64)
		everything, isNew := after == 0, func(r *truth) bool { return r.seq > after }
		if isTimed {
			everything, isNew = opts.After == nil, func(r *truth) bool { return r.at.After(*opts.After) }
		}
		p := l.list(opts.Shard, everything, isNew)
		for i, record := range p.records {
			if i == p.breaks {
				switch p.how {
				case breaksPanicking:
					panic("the page is broken")
				case breaksHanging:
					<-ctx.Done()
				default:
					yield(none, errors.New("the page fails"))
				}
				return
			}
			if !yield(as(record), nil) {
				return
			}
		}
		if !isTimed {
			delta.SetCursor(ctx, strconv.FormatInt(p.position, 10))
		}
	}
}
