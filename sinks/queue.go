package sinks

import (
	"container/heap"
	"time"

	"github.com/chariot-giving/delta/internal/backoff"
)

// queue holds the messages that were read and not confirmed, and decides which may be delivered: the oldest of each key, unless it is being
// delivered or waits for its next attempt. Only the goroutine of [Relay.Run] uses it.
type queue struct {
	entries    []*entry // in the order of the source
	behind     []*entry // the entries that wait for a barrier, which is the first of them
	bytes      int      // of the bodies of entries
	lanes      map[string]*lane
	ready      []*lane
	delayed    delayedLanes
	newBackoff func() *backoff.Backoff
}

// entry is an unconfirmed message.
type entry struct {
	message       Message
	bytes         int // of the body as it was read
	isTransformed bool
	isBlocked     bool // the policy has blocked it, which was logged
	attempts      int
	hasLane       bool // it has a lane
	isDone        bool
}

// lane queues the messages of one key. Each message without a key is alone in a lane.
type lane struct {
	key     string
	entries []*entry
	retryAt time.Time
	backoff *backoff.Backoff
	err     error // of the last attempt of the first entry
}

func newQueue(attempts func() *backoff.Backoff) *queue {
	return &queue{lanes: map[string]*lane{}, newBackoff: attempts}
}

func (q *queue) add(messages []Message) {
	for _, m := range messages {
		e := &entry{message: m}
		q.entries = append(q.entries, e)
		q.bytes += len(m.Body)
		e.bytes = len(m.Body)
		q.behind = append(q.behind, e)
	}
	q.passBarriers()
}

// passBarriers adds the messages up to the next barrier to lanes, and the barrier when all messages before it are finished.
func (q *queue) passBarriers() {
	for len(q.behind) > 0 {
		e := q.behind[0]
		if e.message.Barrier && (e.hasLane || e != q.entries[0]) {
			return
		}
		q.enterLane(e)
		if e.message.Barrier {
			return // it leaves when it is finished
		}
		q.behind = q.behind[1:]
	}
	q.behind = nil
}

func (q *queue) enterLane(e *entry) {
	e.hasLane = true
	key := e.message.Key
	if key == "" || e.message.Barrier {
		q.ready = append(q.ready, &lane{entries: []*entry{e}})
		return
	}
	l, found := q.lanes[key]
	if !found {
		l = &lane{key: key}
		q.lanes[key] = l
		q.ready = append(q.ready, l)
	}
	l.entries = append(l.entries, e)
}

// takeReady returns up to n lanes that may deliver their first message now.
func (q *queue) takeReady(n int, now time.Time) []*lane {
	for len(q.delayed) > 0 && !q.delayed[0].retryAt.After(now) {
		q.ready = append(q.ready, heap.Pop(&q.delayed).(*lane))
	}
	n = min(n, len(q.ready))
	taken := q.ready[:n:n]
	q.ready = q.ready[n:]
	return taken
}

// finishFirst finishes the first message of a lane that was taken: it was delivered, filtered or set aside.
func (q *queue) finishFirst(l *lane) {
	l.entries[0].isDone = true
	l.entries = l.entries[1:]
	l.backoff, l.err = nil, nil
	if len(l.entries) > 0 {
		q.ready = append(q.ready, l)
		return
	}
	delete(q.lanes, l.key)
}

// delayLane makes a lane that was taken wait before its first message is tried again.
func (q *queue) delayLane(l *lane, now time.Time, err error) {
	if l.backoff == nil {
		l.backoff = q.newBackoff()
	}
	l.retryAt, l.err = now.Add(max(l.backoff.Delay(), retryAfter(err))), err
	heap.Push(&q.delayed, l)
}

// takeConfirmable removes the finished messages at the front, and returns the position of the last one.
func (q *queue) takeConfirmable() (position any, found bool) {
	n := 0
	for n < len(q.entries) && q.entries[n].isDone {
		q.bytes -= q.entries[n].bytes
		n++
	}
	if n == 0 {
		return nil, false
	}
	position = q.entries[n-1].message.Position
	clear(q.entries[:n])
	q.entries = q.entries[n:]
	if len(q.behind) > 0 && q.behind[0].isDone {
		q.behind = q.behind[1:]
	}
	q.passBarriers()
	return position, true
}

// nextRetry returns when the first delayed lane is tried again, zero if none is delayed.
func (q *queue) nextRetry() time.Time {
	if len(q.delayed) == 0 {
		return time.Time{}
	}
	return q.delayed[0].retryAt
}

// delayedLanes is a heap by the time of the next attempt.
type delayedLanes []*lane

func (d delayedLanes) Len() int           { return len(d) }
func (d delayedLanes) Less(i, j int) bool { return d[i].retryAt.Before(d[j].retryAt) }
func (d delayedLanes) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *delayedLanes) Push(l any)        { *d = append(*d, l.(*lane)) }
func (d *delayedLanes) Pop() any {
	last := (*d)[len(*d)-1]
	(*d)[len(*d)-1] = nil
	*d = (*d)[:len(*d)-1]
	return last
}
