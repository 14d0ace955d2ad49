package delta

import "time"

// lag is how far listings are behind, which are to be made at an interval: the time since a pass last succeeded, if the latest one has failed, or
// if one was left out: half an interval is for passes that take their time. It is 0 where they are not behind, and where no pass has
// succeeded yet. A listing that finds nothing new is not behind: so the cursor, which may stay at the latest creation, says nothing of it.
func lag(interval time.Duration, lastSuccess *time.Time, failure string, now time.Time) time.Duration {
	if lastSuccess == nil {
		return 0
	}
	since := max(now.Sub(*lastSuccess), 0)
	isLeftOut := interval > 0 && since > interval+max(interval/2, lateGrace)
	if failure != "" || isLeftOut {
		return since
	}
	return 0
}

// measureLag says how far the listings of a kind are behind, and of each of its shards: the kind as far as the one that is furthest behind.
func (k *KindStatus) measureLag(now time.Time) {
	if k.ListsNothing {
		return
	}
	// Where there are shards, this is about naming them.
	k.Lag = lag(k.InformInterval, k.LastSuccess, k.InformError, now)
	named := false
	for i := range k.Shards {
		s := &k.Shards[i]
		if s.GoneSince != nil {
			continue
		}
		s.Lag = lag(k.InformInterval, s.LastSuccess, s.Error, now)
		k.Lag = max(k.Lag, s.Lag)
		if k.LastFailure == nil || (s.LastFailure != nil && s.LastFailure.After(*k.LastFailure)) {
			k.LastFailure = s.LastFailure
		}
		if named {
			k.LastSuccess = earlier(k.LastSuccess, s.LastSuccess)
			continue
		}
		named, k.LastSuccess = true, s.LastSuccess
	}
}
