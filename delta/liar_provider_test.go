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

// liedRecords is how many records an account may have.
const liedRecords = 15

// lied is a record as a provider tells of it, which may not be as it is.
type lied struct {
	Key, Account string
	Rev          int64
}

func (l lied) ID() string      { return l.Key }
func (l lied) Revision() int64 { return l.Rev }

// truth is what there is.
type truth struct {
	lied
	alive bool
	// seq is that of its latest change, and at when that was, give or take: what incremental listings go by.
	seq int64
	at  time.Time
}

// liar is a provider whose listings and webhooks lie until it is honest.
type liar struct {
	mu       sync.Mutex
	rand     *rand.Rand
	honest   bool
	accounts []string
	all      map[string]*truth
	// late are changes that listings do not tell yet.
	late map[string]bool
	seq  int64
	// omitted are records that a whole listing of everything has left out since Work was called for them last: they may be taken for gone.
	omitted map[string]bool
	// leftOut are those that one has left out since a command deleted them last: their rows may be removed, so that nothing keeps a listing from
	// bringing them back.
	leftOut map[string]bool
}

func newLiar(seed uint64) *liar {
	l := &liar{rand: rand.New(rand.NewPCG(seed, 0)), all: map[string]*truth{}, late: map[string]bool{}, omitted: map[string]bool{}, leftOut: map[string]bool{}}
	for i := range 4 {
		l.accounts = append(l.accounts, fmt.Sprint("acct_", i))
	}
	return l
}

// oneIn reports true once in so many times, while it lies.
func (l *liar) oneIn(in int) bool { return !l.honest && l.rand.IntN(in) == 0 }

// randomBelow is a number below most, for what calls at the same time.
func (l *liar) randomBelow(most int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rand.IntN(most)
}

// isLying reports whether it lies still.
func (l *liar) isLying() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.honest
}

// change changes, makes or removes a record, and returns what a webhook says of it; alive is false for one that was removed.
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

// get is the record as it is.
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

// allRecords are all records as they are.
func (l *liar) allRecords() (all []truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.all {
		all = append(all, *r)
	}
	return all
}

// shards names the accounts, or fails, or leaves one out.
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

// page is what a listing yields, with the position that it reaches; breaks says after how many records it breaks off, and how.
type page struct {
	records  []lied
	position int64
	breaks   int
	how      int
}

// How a listing breaks off. One that hangs ends with its context, and returns as if it were complete, as a careless List does.
const (
	breaksFailing = iota
	breaksPanicking
	breaksHanging
)

// list is what is listed of an account or of all: what has changed since some time or position, or all there is.
func (l *liar) list(account string, everything bool, isNew func(*truth) bool) page {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := page{position: l.seq, breaks: -1}
	if l.oneIn(7) {
		l.noteOmitted(account, everything, p) // it is empty, or nothing is new
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
			continue // it will appear again
		}
		told := r.lied
		if told.Rev > 1 && l.oneIn(6) {
			told.Rev-- // by a replica that lags
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

// breakOff is after how many of some records a listing breaks off. Half of them break off near the end: what those leave out is few enough to be
// deleted without an approval, if they were taken for complete.
func (l *liar) breakOff(records int) int {
	if l.oneIn(2) {
		return max(records-1-l.rand.IntN(liedMaxDeleted), 0)
	}
	return l.rand.IntN(records + 1)
}

// noteOmitted notes what a listing of everything leaves out that does not break off.
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

// mayComeBack reports whether a listing has left out a record since a command deleted it.
func (l *liar) mayComeBack(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leftOut[id]
}

// mayBeGone reports whether a listing has given reason to take a record for gone.
func (l *liar) mayBeGone(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.omitted[id]
}

// listFrom yields what the options ask for as objects of a kind: since a time, if it is timed, or since a position of its own.
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
