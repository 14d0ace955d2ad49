package delta

import (
	"sync"
	"time"

	"github.com/chariot-giving/delta/activities"
)

const (
	// fewSingles is how many resources of a kind in automatic mode may always have single workflows at once, manySingles
	// the most.
	fewSingles  = 16
	manySingles = 256
	// singlesFor is how much work there may be in single workflows; further due resources are batched.
	singlesFor = 500 * time.Millisecond
	// paceOver is the time over which rates are measured.
	paceOver = 5 * time.Second
	// firstBatch is the size of a batch while the duration of Work is unknown. batchFor is how long a batch should take,
	// and largestBatch its largest size, in automatic mode.
	firstBatch   = 100
	batchFor     = 2 * time.Second
	largestBatch = 1000
	// paceWeight is how many calls of Work the moving averages cover.
	paceWeight = 16
)

// pace decides, for a kind in automatic mode, which resources get a single workflow and how large batches are: by the rate
// at which attempts end in this client, and the duration of its calls of Work.
type pace struct {
	parallelism int
	// limited is set for a kind with a rate limit, because a local activity does not wait for it.
	limited bool
	now     func() time.Time

	mu sync.Mutex
	// started are the times of wake-ups of single workflows whose attempts have not ended in this client. One that ended
	// elsewhere is forgotten after a lease.
	started []time.Time
	// ended are the times at which attempts of single workflows ended, within paceOver.
	ended []time.Time
	// batching is set while more is due than single workflows take.
	batching bool
	// took is the moving average of the duration of calls of Work; 0 before the first.
	took time.Duration
	// long is the moving average of the share of calls that were too long for a local activity.
	long float64
}

func newPace(parallelism int, limited bool) *pace {
	return &pace{parallelism: parallelism, limited: limited, now: time.Now}
}

// allowedSingles returns how many more resources may get single workflows.
func (p *pace) allowedSingles() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batching {
		return 0
	}
	p.started = dropBefore(p.started, p.now().Add(-activities.DispatchLease))
	return max(p.maxConcurrentSingles()-len(p.started), 0)
}

// maxConcurrentSingles returns how many resources may have single workflows at once.
func (p *pace) maxConcurrentSingles() int {
	p.ended = dropBefore(p.ended, p.now().Add(-paceOver))
	measured := int(float64(len(p.ended)) * float64(singlesFor) / float64(paceOver))
	return min(max(measured, fewSingles), manySingles)
}

// dropBefore removes the times before first.
func dropBefore(times []time.Time, first time.Time) []time.Time {
	for len(times) > 0 && times[0].Before(first) {
		times = times[1:]
	}
	return times
}

// IsLocal reports whether attempts of single workflows should be local activities: fewer than one call of Work in twenty is
// too long.
func (p *pace) IsLocal() bool {
	const share = 0.05
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.limited && p.long < share
}

// HandedOver records that an attempt was too long for a local activity, before it has ended.
func (p *pace) HandedOver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noteTooLong(true)
}

// noteTooLong records whether a call of Work was too long for a local activity.
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

// uncountWoken removes workflows that could not be woken from the count, because their rows are leased, and counted, again.
func (p *pace) uncountWoken(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = p.started[:max(len(p.started)-n, 0)]
}

// GivenBack takes a resource out of the count that was given back to dispatchers.
func (p *pace) GivenBack() { p.uncountWoken(1) }

// Attempted counts an attempt of a single workflow that has ended.
func (p *pace) Attempted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.started) > 0 {
		p.started = p.started[1:]
	}
	if p.ended = append(p.ended, p.now()); len(p.ended) > 2*manySingles*int(paceOver/singlesFor) {
		p.ended = p.ended[len(p.ended)/2:] // more would not change the result
	}
}

// Called records the duration of a call of Work.
func (p *pace) Called(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noteTooLong(took > activities.MaxLocalAttempt)
	if p.took == 0 {
		p.took = max(took, 1)
		return
	}
	p.took += (took - p.took) / paceWeight
}

// nextBatchSize returns the size of the next batch: as many resources as are worked in batchFor, so that other clients can
// work the rest meanwhile.
func (p *pace) nextBatchSize() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.took == 0 {
		return firstBatch
	}
	return int(min(max(float64(batchFor)*float64(p.parallelism)/float64(p.took), fewSingles), largestBatch))
}

// noteBatch records that a batch leased so many rows, of so many wanted. Batches go on until one is less than half full and
// would fit into single workflows. Otherwise a load that single workflows just carry would begin with some of them at each
// lease, and one costs as much as a hundred members of a batch.
func (p *pace) noteBatch(leased, wanted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batching = 2*leased >= wanted || leased > p.maxConcurrentSingles()
}
