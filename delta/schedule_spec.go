package delta

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
)

// ScheduleSpec is when a Temporal Schedule runs: calendars, intervals and cron expressions, in a time zone, with times to
// skip. Its fields are those of [client.ScheduleSpec].
type ScheduleSpec = client.ScheduleSpec

// canonicalSpec returns a spec as Temporal returns it: with calendars in place of cron expressions, and without defaults.
// So it can be compared with the existing schedule. It refuses specs that Temporal would refuse.
func canonicalSpec(field string, given ScheduleSpec) (*ScheduleSpec, error) {
	spec := ScheduleSpec{
		Calendars: slices.Clone(given.Calendars), Intervals: slices.Clone(given.Intervals), Skip: slices.Clone(given.Skip),
		StartAt: normalizeUTC(given.StartAt), EndAt: normalizeUTC(given.EndAt), Jitter: given.Jitter, TimeZoneName: given.TimeZoneName,
	}
	for i, text := range given.CronExpressions {
		at := fmt.Sprintf("%s.CronExpressions[%d]", field, i)
		calendar, interval, zone, err := parseCron(text)
		if err != nil {
			return nil, inputError(at, text, "must be a cron expression: %s", err)
		}
		if zone != "" && spec.TimeZoneName != "" && zone != spec.TimeZoneName {
			return nil, inputError(at, text, "must be in the time zone of the others, %q: a schedule has one", spec.TimeZoneName)
		}
		if zone != "" {
			spec.TimeZoneName = zone
		}
		if calendar != nil {
			spec.Calendars = append(spec.Calendars, *calendar)
		}
		if interval != nil {
			spec.Intervals = append(spec.Intervals, *interval)
		}
	}
	if len(spec.Calendars)+len(spec.Intervals) == 0 {
		return nil, inputError(field, "{}", "must have a calendar, an interval or a cron expression: InformInterval -1 means never")
	}
	for i, interval := range spec.Intervals {
		if err := checkScheduleInterval(fmt.Sprintf("%s.Intervals[%d]", field, i), interval); err != nil {
			return nil, err
		}
	}
	for _, list := range []struct {
		name      string
		calendars []client.ScheduleCalendarSpec
	}{{"Calendars", spec.Calendars}, {"Skip", spec.Skip}} {
		for i := range list.calendars {
			if err := fillCalendar(fmt.Sprintf("%s.%s[%d]", field, list.name, i), &list.calendars[i]); err != nil {
				return nil, err
			}
		}
	}
	if !spec.EndAt.IsZero() && spec.EndAt.Before(spec.StartAt) {
		return nil, inputError(field+".EndAt", spec.EndAt, "must not be before StartAt, %s", spec.StartAt)
	}
	if spec.Jitter < 0 {
		return nil, inputError(field+".Jitter", spec.Jitter, "must not be negative")
	}
	return &spec, checkTimeZone(field+".TimeZoneName", spec.TimeZoneName)
}

// checkScheduleInterval refuses parts of a second, which Temporal would drop silently.
func checkScheduleInterval(field string, i client.ScheduleIntervalSpec) error {
	switch {
	case i.Every < time.Second || i.Every%time.Second != 0:
		return inputError(field+".Every", i.Every, "must be whole seconds, 1s at least: InformInterval may have parts of a second")
	case i.Offset < 0 || i.Offset >= i.Every || i.Offset%time.Second != 0:
		return inputError(field+".Offset", i.Offset, "must be whole seconds, and less than Every, %s", i.Every)
	}
	return checkDuration(field+".Every", i.Every)
}

// fillCalendar fills in the defaults of a calendar.
func fillCalendar(field string, c *client.ScheduleCalendarSpec) error {
	const maxComment = 200 // Temporal's
	if len(c.Comment) > maxComment {
		return inputError(field+".Comment", c.Comment, "must be at most %d bytes", maxComment)
	}
	for _, part := range []struct {
		name   string
		bounds cronField
		ranges *[]client.ScheduleRange
		// first and last are the range of an omitted field.
		first, last int
	}{
		{"Second", cronSecond, &c.Second, 0, 0},
		{"Minute", cronMinute, &c.Minute, 0, 0},
		{"Hour", cronHour, &c.Hour, 0, 0},
		{"DayOfMonth", cronDayOfMonth, &c.DayOfMonth, 1, 31},
		{"Month", cronMonth, &c.Month, 1, 12},
		{"DayOfWeek", cronField{last: 6}, &c.DayOfWeek, 0, 6},
		{"Year", cronYear, &c.Year, 0, 0},
	} {
		if len(*part.ranges) == 0 {
			if part.name != "Year" { // every year
				*part.ranges = []client.ScheduleRange{{Start: part.first, End: part.last, Step: 1}}
			}
			continue
		}
		*part.ranges = slices.Clone(*part.ranges)
		for i := range *part.ranges {
			r := &(*part.ranges)[i]
			if r.End == 0 {
				r.End = r.Start
			}
			if r.Step == 0 {
				r.Step = 1
			}
			if r.Start < part.bounds.first || r.End < r.Start || r.End > part.bounds.last || r.Step < 0 {
				return inputError(fmt.Sprintf("%s.%s[%d]", field, part.name, i), fmt.Sprintf("%d-%d/%d", r.Start, r.End, r.Step),
					"must be a range from %d to %d, with a step from 1", part.bounds.first, part.bounds.last)
			}
		}
	}
	return nil
}

// checkTimeZone refuses an unknown time zone. If this machine knows no time zones, Temporal decides.
func checkTimeZone(field, name string) error {
	_, err := time.LoadLocation(name)
	if err == nil {
		return nil
	}
	if _, none := time.LoadLocation("America/New_York"); none != nil {
		return nil //nolint:nilerr // there is no database of time zones here
	}
	return inputError(field, name, "must be the name of a time zone, such as Europe/Berlin")
}

func normalizeUTC(at time.Time) time.Time {
	if at.IsZero() {
		return time.Time{}
	}
	return at.UTC()
}

// isSameSpec reports whether an existing schedule runs as wanted.
func isSameSpec(there *ScheduleSpec, wanted *ScheduleSpec) bool {
	plain := func(s ScheduleSpec) ScheduleSpec {
		s.CronExpressions, s.StartAt, s.EndAt = nil, normalizeUTC(s.StartAt), normalizeUTC(s.EndAt)
		s.Calendars, s.Skip = plainCalendars(s.Calendars), plainCalendars(s.Skip)
		s.Intervals = append([]client.ScheduleIntervalSpec{}, s.Intervals...)
		if s.TimeZoneName == "UTC" {
			s.TimeZoneName = ""
		}
		return s
	}
	return there != nil && reflect.DeepEqual(plain(*there), plain(*wanted))
}

// plainCalendars makes empty lists equal, whether they are nil or not.
func plainCalendars(all []client.ScheduleCalendarSpec) []client.ScheduleCalendarSpec {
	made := make([]client.ScheduleCalendarSpec, len(all))
	for i, c := range all {
		for _, ranges := range []*[]client.ScheduleRange{&c.Second, &c.Minute, &c.Hour, &c.DayOfMonth, &c.Month, &c.DayOfWeek, &c.Year} {
			*ranges = append([]client.ScheduleRange{}, *ranges...)
		}
		made[i] = c
	}
	return made
}

// encodeSpec encodes a spec for the row of its kind; nil for none.
func encodeSpec(spec *ScheduleSpec) ([]byte, error) {
	if spec == nil {
		return nil, nil
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("the schedule of the informer: %w", err)
	}
	return encoded, nil
}

func decodeSpec(encoded []byte) (*ScheduleSpec, error) {
	if encoded == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	spec := new(ScheduleSpec)
	if err := json.Unmarshal(encoded, spec); err != nil {
		return nil, fmt.Errorf("the schedule of the informer, %s: %w", encoded, err)
	}
	return spec, nil
}

// intervalUnit is the unit of intervals. Temporal's schedules know whole seconds, so an interval with parts of a second is
// made of up to a hundred intervals.
const intervalUnit = 10 * time.Millisecond

// maxInformJitter is the longest default jitter.
const maxInformJitter = 30 * time.Second

// intervalSpec returns a schedule by an interval; nil for never. A run is late by a random part of jitter: negative means
// none, nil a tenth of the interval, or 30 s if that is less. Because Temporal's schedules drop parts of a second, an
// interval with such a part becomes several longer ones, one for each position within whole seconds, and the run waits for
// the rest of its second; it has no jitter.
func intervalSpec(interval time.Duration, jitter *time.Duration) *ScheduleSpec {
	if interval <= 0 {
		return nil
	}
	if interval%time.Second == 0 {
		most := min(interval/10, maxInformJitter)
		if jitter != nil {
			most = max(*jitter, 0)
		}
		return &ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: interval}}, Jitter: most}
	}
	n := time.Duration(1)
	for interval*n%time.Second != 0 {
		n++
	}
	spec := &ScheduleSpec{}
	for i := range n {
		spec.Intervals = append(spec.Intervals, client.ScheduleIntervalSpec{Every: interval * n, Offset: (interval * i).Truncate(time.Second)})
	}
	return spec
}

// checkInterval refuses an interval that Temporal cannot keep.
func checkInterval(field string, interval time.Duration) error {
	if interval > 0 && interval%intervalUnit != 0 {
		return inputError(field, interval, "must be a multiple of %s", intervalUnit)
	}
	return nil
}
