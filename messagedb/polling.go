package messagedb

import "time"

// DefaultPollingInterval is how long a subscription waits after a read that found less than a batch.
const DefaultPollingInterval = 100 * time.Millisecond

// Polling tells how long to wait before the next read, from how many messages the last one retrieved of how many it asked
// for. It belongs to one subscription, which never calls it concurrently.
type Polling func(retrieved, expected int) time.Duration

// PollingStrategy makes the [Polling] of one subscription. It must be safe for concurrent use.
type PollingStrategy func() Polling

// ConstantPolling reads again at once after a full batch, else after an interval. An interval that is not positive counts
// as [DefaultPollingInterval].
func ConstantPolling(interval time.Duration) PollingStrategy {
	interval = orDefaultInterval(interval)
	return func() Polling {
		return func(retrieved, expected int) time.Duration {
			if retrieved >= expected {
				return 0
			}
			return interval
		}
	}
}

// IdlePolling reads again at once after a batch with messages, else after an interval: what Message DB's documentation
// wants of a consumer. An interval that is not positive counts as [DefaultPollingInterval].
func IdlePolling(interval time.Duration) PollingStrategy {
	interval = orDefaultInterval(interval)
	return func() Polling {
		return func(retrieved, _ int) time.Duration {
			if retrieved > 0 {
				return 0
			}
			return interval
		}
	}
}

// ExpBackoffPolling reads again at once after a full batch, after the shortest delay when a batch was not full, and after a
// delay that is multiplied with each empty one, up to the longest. A shortest that is not positive counts as
// [DefaultPollingInterval], a longest below the shortest as the shortest, and a multiplier below 1 as 1.
func ExpBackoffPolling(shortest, longest time.Duration, multiplier float64) PollingStrategy {
	shortest = orDefaultInterval(shortest)
	longest = max(longest, shortest)
	multiplier = max(multiplier, 1)
	return func() Polling {
		next := shortest
		return func(retrieved, expected int) time.Duration {
			switch {
			case retrieved >= expected:
				next = shortest
				return 0
			case retrieved > 0:
				next = shortest
				return shortest
			}
			delay := next
			// Compared as floating point, which does not overflow.
			if grown := float64(next) * multiplier; grown < float64(longest) {
				next = time.Duration(grown)
			} else {
				next = longest
			}
			return delay
		}
	}
}

// DynamicPolling looks for the delay at which batches are filled to a target share, from 0 to 1: one step less after a
// batch that was fuller, one step more after one that was emptier, between the shortest and the longest delay. After a
// full batch it reads again at once. Durations that are not positive count as [DefaultPollingInterval], a longest below the
// shortest as the shortest; a target outside of 0 to 1 counts as the nearer of these.
func DynamicPolling(target float64, step, shortest, longest time.Duration) PollingStrategy {
	step = orDefaultInterval(step)
	shortest = orDefaultInterval(shortest)
	longest = max(longest, shortest)
	target = min(max(target, 0), 1)
	return func() Polling {
		delay := shortest
		return func(retrieved, expected int) time.Duration {
			share := float64(retrieved) / float64(max(expected, 1))
			switch {
			case share > target:
				delay = max(delay-step, shortest)
			case share < target:
				delay = min(delay+step, longest)
			}
			if retrieved >= expected {
				return 0
			}
			return delay
		}
	}
}

func orDefaultInterval(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultPollingInterval
	}
	return d
}

// newPolling returns the polling of a strategy, or an error if that is nil.
func newPolling(strategy PollingStrategy) (Polling, error) {
	p := strategy()
	if p == nil {
		return nil, newInvalidError(FieldPolling, "nil", "a strategy must not return a nil Polling")
	}
	return p, nil
}
