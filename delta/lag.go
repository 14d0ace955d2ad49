package delta

import (
	"time"

	"github.com/chariot-giving/delta/db"
)

// lag is how far listings are behind, which are to be made at an interval: the time since a pass last succeeded, if the latest one has failed, or
// if one was left out: half an interval is for passes that take their time. It is 0 where they are not behind, and where no pass has
// succeeded yet: then since is negative. A listing that finds nothing new is not behind: so the cursor, which may stay at the latest creation,
// says nothing of it.
func lag(interval, since time.Duration, isFailing bool) time.Duration {
	isLeftOut := interval > 0 && since > interval+max(interval/2, lateGrace)
	if isFailing || isLeftOut {
		return max(since, 0)
	}
	return 0
}

// lagOf is the lag of the listing of a shard. One that is paused was stopped on purpose, and is not behind.
func lagOf(interval time.Duration, lastSuccess *time.Time, failure string, isPaused bool, now time.Time) time.Duration {
	if isPaused || lastSuccess == nil {
		return 0
	}
	return lag(interval, now.Sub(*lastSuccess), failure != "")
}

// measurePass computes from what was read of a kind how its listings stand. The lag is that of [KindStatus]: of all shards the one is furthest
// behind whose success is longest ago, or that of those which fail.
func measurePass(p *db.MeasurePassesRow) LastPassMeasurement {
	m := LastPassMeasurement{
		Kind: p.Kind, Failing: p.Failing, Withheld: p.Withheld,
		Lag: max(lag(p.InformInterval, p.Oldest, false), lag(p.InformInterval, p.OldestFailing, true)),
	}
	if p.Age >= 0 {
		m.Age = &p.Age
	}
	return m
}

// measureLag says how far the listings of a kind are behind, and of each of its shards: the kind as far as the one that is furthest behind.
func (k *KindStatus) measureLag(now time.Time) {
	if k.ListsNothing {
		return
	}
	// Where there are shards, this is about naming them.
	k.Lag = lagOf(k.InformInterval, k.LastSuccess, k.InformError, k.InformerPaused, now)
	named := false
	for i := range k.Shards {
		s := &k.Shards[i]
		if s.GoneSince != nil {
			continue
		}
		s.Lag = lagOf(k.InformInterval, s.LastSuccess, s.Error, k.InformerPaused || s.Paused, now)
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
