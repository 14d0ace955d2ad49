package delta

import (
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// maxCalendarGrace bounds how long a run of a calendar may take before its listing is behind.
const maxCalendarGrace = 24 * time.Hour

// runTimes say when the informer of a kind runs by itself.
type runTimes struct {
	interval, full time.Duration
	// jitter is how late a run by an interval may be at random, as [every] takes it.
	jitter *time.Duration
	// spec is the calendar of a kind that has one, with a jitter of its own.
	spec *ScheduleSpec
}

// latestDue is the latest time by which there must have been a success since: what succeeded before it only has missed a run. A run within its jitter has not
// been missed, and half of the time between two runs is for a pass that takes its time. It is zero where there is no such time, as for a kind that is
// listed only on request.
func (r runTimes) latestDue(now time.Time) time.Time {
	interval := r.interval
	if interval <= 0 {
		interval = r.full
	}
	switch {
	case r.spec != nil:
		return dueByCalendar(r.spec, now)
	case interval > 0:
		jitter := min(intervalSpec(interval, r.jitter).Jitter, interval) // Temporal never has a run begin after the time of the next
		return now.Add(-interval - jitter - max(interval/2, lateGrace))
	}
	return time.Time{}
}

// dueByCalendar is the latest scheduled time of which the grace has passed.
func dueByCalendar(spec *ScheduleSpec, now time.Time) time.Time {
	last := previousRun(spec, now.Add(-spec.Jitter))
	if last.IsZero() {
		return last
	}
	before := previousRun(spec, last.Add(-time.Second))
	grace := maxCalendarGrace
	if !before.IsZero() {
		grace = min(max(last.Sub(before)/2, lateGrace), maxCalendarGrace)
	}
	if now.Sub(last)-spec.Jitter < grace {
		return before
	}
	return last
}

// listingLag is how far a listing is behind, if its latest pass has failed or a run is missing, and 0 otherwise. behind is how long ago a pass succeeded or,
// before the first success, since when it is to be listed; waited is since when a run may be missing. A listing that finds nothing new is not behind:
// so the cursor, which may stay at the latest creation, says nothing of it.
func listingLag(due, now time.Time, behind, waited time.Duration, isFailing bool) time.Duration {
	isMissing := !due.IsZero() && now.Add(-waited).Before(due)
	if isFailing || isMissing {
		return max(behind, 0)
	}
	return 0
}

// shardLag is the lag of the listing of a shard that is to be listed since a time; zero where no client has said so. One that is paused was stopped on
// purpose, and is not behind.
func shardLag(due, now, since time.Time, lastSuccess *time.Time, failure string, isPaused bool) time.Duration {
	if isPaused || (lastSuccess == nil && since.IsZero()) {
		return 0
	}
	behind := now.Sub(since)
	waited := behind
	if lastSuccess != nil {
		behind = now.Sub(*lastSuccess)
		waited = min(waited, behind)
	}
	return listingLag(due, now, behind, waited, failure != "")
}

// measurePass computes from what was read of a kind how its listings stand. The lag is that of [KindStatus]: of all shards the one is furthest
// behind whose success is longest ago, or that of those which fail.
func measurePass(p *db.MeasurePassesRow, now time.Time) (LastPassMeasurement, error) {
	spec, err := decodeSpec(p.InformSchedule)
	if err != nil {
		return LastPassMeasurement{}, fmt.Errorf("kind %q: %w", p.Kind, err)
	}
	times := runTimes{interval: p.InformInterval, full: p.FullListingInterval, jitter: p.InformJitter, spec: spec}
	m := LastPassMeasurement{
		Kind: p.Kind, Failing: p.Failing, Withheld: p.Withheld,
		Lag: max(listingLag(times.latestDue(now), now, p.Behind, p.Waited, false), p.BehindFailing),
	}
	if p.Age >= 0 {
		m.Age = &p.Age
	}
	return m, nil
}

// measureLag says how far the listings of a kind are behind, and of each of its shards: the kind as far as the one that is furthest behind.
func (k *KindStatus) measureLag(now time.Time) {
	defer k.forgetSince()
	if k.ListsNothing {
		return
	}
	due := runTimes{interval: k.InformInterval, full: k.FullListingInterval, jitter: k.informJitter, spec: k.InformSchedule}.latestDue(now)
	// Where there are shards, this is about naming them.
	k.Lag = shardLag(due, now, k.informsSince, k.LastSuccess, k.InformError, k.InformerPaused)
	named := false
	for i := range k.Shards {
		s := &k.Shards[i]
		if s.GoneSince != nil {
			continue
		}
		since := k.informsSince
		if s.namedSince.After(since) {
			since = s.namedSince
		}
		s.Lag = shardLag(due, now, since, s.LastSuccess, s.Error, k.InformerPaused || s.Paused)
		k.Lag = max(k.Lag, s.Lag)
		if k.LastFailure == nil || (s.LastFailure != nil && s.LastFailure.After(*k.LastFailure)) {
			k.LastFailure = s.LastFailure
		}
		if named {
			k.LastSuccess = earlierTime(k.LastSuccess, s.LastSuccess)
			continue
		}
		named, k.LastSuccess = true, s.LastSuccess
	}
}

// forgetSince leaves out what only the lag is computed from, so that callers can compare what they are given.
func (k *KindStatus) forgetSince() {
	k.informsSince, k.informJitter = time.Time{}, nil
	for i := range k.Shards {
		k.Shards[i].namedSince = time.Time{}
	}
}
