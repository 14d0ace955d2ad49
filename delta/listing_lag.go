package delta

import (
	"fmt"
	"time"

	"github.com/chariot-giving/delta/db"
)

// maxCalendarGrace bounds how long a run of a calendar may take before its listing counts as behind.
const maxCalendarGrace = 24 * time.Hour

// runTimes are the times at which the informer of a kind runs by itself.
type runTimes struct {
	interval, full time.Duration
	// jitter is the random delay of a run by an interval, as [intervalSpec] takes it.
	jitter *time.Duration
	// spec is the calendar of a kind that has one, with its own jitter.
	spec *ScheduleSpec
}

// latestDue returns the time since which there must have been a success: if the latest success is earlier, a run was
// missed. A run within its jitter is not missed, and half of the time between two runs is left for a slow pass. It is zero
// if there is no such time, as for a kind that is listed only on request.
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

// dueByCalendar returns the latest scheduled time whose grace has passed.
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

// listingLag returns how far a listing is behind, if its latest pass has failed or a run is missing, and 0 otherwise.
// behind is the time since the latest success or, before the first one, since the listing should run. waited is the time in
// which a run may be missing. The cursor does not count, because it may stay at the latest creation: a listing that finds
// nothing new is not behind.
func listingLag(due, now time.Time, behind, waited time.Duration, isFailing bool) time.Duration {
	isMissing := !due.IsZero() && now.Add(-waited).Before(due)
	if isFailing || isMissing {
		return max(behind, 0)
	}
	return 0
}

// shardLag returns the lag of the listing of a shard that should run since a time; 0 if no client has set one. A paused
// shard is not behind.
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

// measurePass computes the state of a kind's listings. The lag is that of [KindStatus]: of all shards, that of the one with
// the oldest success, or of the failing ones.
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

// measureLag sets the lag of a kind and of each of its shards: the lag of the kind is the largest of them.
func (k *KindStatus) measureLag(now time.Time) {
	defer k.forgetSince()
	if k.ListsNothing {
		return
	}
	due := runTimes{interval: k.InformInterval, full: k.FullListingInterval, jitter: k.informJitter, spec: k.InformSchedule}.latestDue(now)
	// With shards, the pass without a shard is about naming them.
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

// forgetSince clears the fields that only the lag is computed from, so that callers can compare results.
func (k *KindStatus) forgetSince() {
	k.informsSince, k.informJitter = time.Time{}, nil
	for i := range k.Shards {
		k.Shards[i].namedSince = time.Time{}
	}
}
