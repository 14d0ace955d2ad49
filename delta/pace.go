package delta

import (
	"sync"
	"time"

	"github.com/chariot-giving/delta/activities"
)

const (
	// fewSingles is how many resources of a kind in automatic mode may have workflows of their own at once in any case, and manySingles
	// how many at most.
	fewSingles  = 16
	manySingles = 256
	// singlesFor is how much work there may be in single workflows: what is due beyond that is batched.
	singlesFor = 500 * time.Millisecond
	// paceOver is the time over which rates are measured.
	paceOver = 5 * time.Second
	// firstBatch is how large a batch is while it is not known how long Work takes, batchFor how long one is to hold its members, and
	// largestBatch how many they are at most, in automatic mode.
	firstBatch   = 100
	batchFor     = 2 * time.Second
	largestBatch = 1000
	// paceWeight is how many calls of Work a mean remembers.
	paceWeight = 16
)

// pace decides, for a kind in automatic mode, which resources get a workflow each and how large batches are: by how many attempts
// end on this client, and how long its calls of Work take.
type pace struct {
	parallelism int
	// limited is true for a kind with a rate limit: a local activity does not wait for it.
	limited bool
	now     func() time.Time

	mu sync.Mutex
	// started are the times at which single workflows were woken whose attempts have not ended here. An attempt that ended elsewhere is
	// forgotten after a lease.
	started []time.Time
	// ended are the times at which attempts of single workflows ended, for as long as rates are measured.
	ended []time.Time
	// batching is set while more is due than single workflows take.
	batching bool
	// took is how long calls of Work take, a mean that forgets; 0 before the first.
	took time.Duration
	// long is the share of them that were too long for a local activity, a mean that forgets, too.
	long float64
}

func newPace(parallelism int, limited bool) *pace {
	return &pace{parallelism: parallelism, limited: limited, now: time.Now}
}

// allowedSingles is how many more resources may get workflows of their own.
func (p *pace) allowedSingles() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batching {
		return 0
	}
	p.started = dropBefore(p.started, p.now().Add(-activities.DispatchLease))
	return max(p.maxConcurrentSingles()-len(p.started), 0)
}

// maxConcurrentSingles is how many resources may have workflows of their own at once.
func (p *pace) maxConcurrentSingles() int {
	p.ended = dropBefore(p.ended, p.now().Add(-paceOver))
	measured := int(float64(len(p.ended)) * float64(singlesFor) / float64(paceOver))
	return min(max(measured, fewSingles), manySingles)
}

// dropBefore drops the times before one.
func dropBefore(times []time.Time, first time.Time) []time.Time {
	for len(times) > 0 && times[0].Before(first) {
		times = times[1:]
	}
	return times
}

// IsLocal reports whether attempts of single workflows are to be local activities: fewer than one call of Work in twenty is too long.
func (p *pace) IsLocal() bool {
	const share = 0.05
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.limited && p.long < share
}

// HandedOver takes in that an attempt was too long for a local activity, before it has ended.
func (p *pace) HandedOver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noteTooLong(true)
}

// noteTooLong takes in whether a call of Work was too long for a local activity.
func (p *pace) noteTooLong(long bool) {
	p.long -= p.long / paceWeight
	if long {
		p.long += 1. / paceWeight
	}
}

// countWoken counts single workflows that were woken.
func (p *pace) countWoken(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for range n {
		p.started = append(p.started, now)
	}
}

// uncountWoken takes some of those back, whose workflows could not be woken: their rows are leased again, and would count twice.
func (p *pace) uncountWoken(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = p.started[:max(len(p.started)-n, 0)]
}

// Attempted counts an attempt of a single workflow that has ended.
func (p *pace) Attempted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.started) > 0 {
		p.started = p.started[1:]
	}
	if p.ended = append(p.ended, p.now()); len(p.ended) > 2*manySingles*int(paceOver/singlesFor) {
		p.ended = p.ended[len(p.ended)/2:] // more would not change what follows from it
	}
}

// Called takes in how long a call of Work took.
func (p *pace) Called(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noteTooLong(took > activities.LocalFor)
	if p.took == 0 {
		p.took = max(took, 1)
		return
	}
	p.took += (took - p.took) / paceWeight
}

// nextBatchSize is how large a batch is to be: as much as is worked in some seconds, so that it does not keep from other clients what they could
// work meanwhile.
func (p *pace) nextBatchSize() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.took == 0 {
		return firstBatch
	}
	return int(min(max(float64(batchFor)*float64(p.parallelism)/float64(p.took), fewSingles), largestBatch))
}

// noteBatch takes in that a batch of so many was leased, of so many wanted. It goes on with batches until one is less than half full and has no more than could have
// workflows of their own: while as much comes in as these take, each look would begin with some of them, and one costs as much as a hundred members of a batch.
func (p *pace) noteBatch(leased, wanted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batching = 2*leased >= wanted || leased > p.maxConcurrentSingles()
}
