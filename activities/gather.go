package activities

import "time"

const (
	// A set of outcomes is written when it has maxFlush, or when its first has waited for flushInterval. Locked rows
	// are tried again after lockedInterval.
	maxFlush       = 1000
	flushInterval  = 200 * time.Millisecond
	lockedInterval = time.Second
)

// gatherOutcomes calls flush for sets of outcomes until the channel is closed: for a full set, or when the first of a
// set has waited. flush returns outcomes with locked rows, which come again. gatherOutcomes returns those that are
// still locked at the end.
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
