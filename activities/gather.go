package activities

import "time"

const (
	// flushMost and flushEvery say when outcomes are written: there are so many of them, or the first of them has waited. Those whose rows are locked are
	// written again after lockedAgain.
	maxFlush       = 1000
	flushInterval  = 200 * time.Millisecond
	lockedInterval = time.Second
)

// gatherOutcomes has outcomes written in sets until there are no more: when there are many, or the first of a set has waited. What is locked comes again, and what still is at
// the end is returned.
func gatherOutcomes(results <-chan *claimed, flush func(set []*claimed) (locked []*claimed)) (locked []*claimed) {
	var set []*claimed
	waited, again := time.NewTimer(flushInterval), time.NewTimer(lockedInterval)
	waited.Stop()
	again.Stop()
	defer waited.Stop()
	defer again.Stop()
	write := func(set []*claimed) {
		if len(set) == 0 {
			return
		}
		left := flush(set)
		if len(locked) == 0 && len(left) > 0 {
			again.Reset(lockedInterval)
		}
		locked = append(locked, left...)
	}
	for {
		select {
		case one, more := <-results:
			if !more {
				write(set)
				return locked
			}
			if set = append(set, one); len(set) == 1 {
				waited.Reset(flushInterval)
			}
			if len(set) < maxFlush {
				continue
			}
		case <-waited.C:
		case <-again.C:
			once := locked
			locked = nil
			write(once)
			continue
		}
		waited.Stop()
		write(set)
		set = nil
	}
}
