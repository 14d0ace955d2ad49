package delta

import (
	"time"

	"go.temporal.io/sdk/client"
)

const (
	// maxPastDays is how far back a scheduled time is looked for: the latest 29th of February may be eight years ago.
	maxPastDays = 9 * 366
	// maxPastRuns bounds the skipped times that are looked at.
	maxPastRuns = 10_000
)

// previousRun returns the latest time, until t, at which a schedule runs, without its jitter. The spec is one of
// [canonicalSpec]. It is zero if there is none, and if the time zone is unknown here.
//
// Temporal's server has a forward calculation of this in a package of its module, which would bring in the whole server.
func previousRun(spec *ScheduleSpec, t time.Time) time.Time {
	zone, err := time.LoadLocation(spec.TimeZoneName)
	if err != nil {
		return time.Time{}
	}
	if !spec.EndAt.IsZero() && spec.EndAt.Before(t) {
		t = spec.EndAt
	}
	for range maxPastRuns {
		at := latestRun(spec, t.In(zone))
		if at.IsZero() || at.Before(spec.StartAt) {
			return time.Time{}
		}
		skipped := skippedSince(spec.Skip, at)
		if skipped.IsZero() {
			return at.UTC()
		}
		t = skipped.Add(-time.Second)
	}
	return time.Time{}
}

// latestRun returns the latest time of all calendars and intervals of a schedule.
func latestRun(spec *ScheduleSpec, t time.Time) (latest time.Time) {
	for i := range spec.Calendars {
		if at := latestOfCalendar(&spec.Calendars[i], t); at.After(latest) {
			latest = at
		}
	}
	for _, interval := range spec.Intervals {
		every, offset := int64(interval.Every/time.Second), int64(interval.Offset/time.Second)
		passed := t.Unix() - offset
		if at := time.Unix(passed-passed%every+offset, 0).In(t.Location()); at.After(latest) {
			latest = at
		}
	}
	return latest
}

// latestOfCalendar goes back day by day.
func latestOfCalendar(c *client.ScheduleCalendarSpec, t time.Time) time.Time {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	for range maxPastDays {
		noon := time.Date(year, month, day, 12, 0, 0, 0, t.Location())
		if isDayOf(c, noon) {
			if at := latestOfDay(c, noon, hour, minute, second); !at.IsZero() && !at.After(t) {
				return at
			}
		}
		day--
		hour, minute, second = 23, 59, 59
	}
	return time.Time{}
}

func isDayOf(c *client.ScheduleCalendarSpec, at time.Time) bool {
	return isIn(c.Month, int(at.Month())) && isIn(c.DayOfMonth, at.Day()) && isIn(c.DayOfWeek, int(at.Weekday())) &&
		(len(c.Year) == 0 || isIn(c.Year, at.Year()))
}

// latestOfDay returns the latest time of a day, until a time of its clock; zero if there is none.
func latestOfDay(c *client.ScheduleCalendarSpec, day time.Time, hour, minute, second int) time.Time {
	for h := hour; h >= 0; h-- {
		if h < hour {
			minute = 59
		}
		if !isIn(c.Hour, h) {
			continue
		}
		for m := minute; m >= 0; m-- {
			if h < hour || m < minute {
				second = 59
			}
			if !isIn(c.Minute, m) {
				continue
			}
			for s := second; s >= 0; s-- {
				if isIn(c.Second, s) {
					return time.Date(day.Year(), day.Month(), day.Day(), h, m, s, 0, day.Location())
				}
			}
		}
	}
	return time.Time{}
}

// skippedSince returns the beginning of the uninterrupted time, within one calendar, that the schedule skips and that leads
// to at; zero if at is not skipped.
func skippedSince(skip []client.ScheduleCalendarSpec, at time.Time) time.Time {
	for i := range skip {
		c := &skip[i]
		hour, minute, second := at.Clock()
		if !isDayOf(c, at) || !isIn(c.Hour, hour) || !isIn(c.Minute, minute) || !isIn(c.Second, second) {
			continue
		}
		if !isEach(c.Second, 60) {
			return at
		}
		second = 0
		if isEach(c.Minute, 60) {
			minute = 0
			if isEach(c.Hour, 24) {
				hour = 0
			}
		}
		return time.Date(at.Year(), at.Month(), at.Day(), hour, minute, second, 0, at.Location())
	}
	return time.Time{}
}

// isIn reports whether one of the ranges contains the number.
func isIn(ranges []client.ScheduleRange, n int) bool {
	for _, r := range ranges {
		if n >= r.Start && n <= r.End && (n-r.Start)%max(r.Step, 1) == 0 {
			return true
		}
	}
	return false
}

// isEach reports whether the ranges contain every number from 0 on.
func isEach(ranges []client.ScheduleRange, numbers int) bool {
	for n := range numbers {
		if !isIn(ranges, n) {
			return false
		}
	}
	return true
}
