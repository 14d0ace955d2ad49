package delta

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
)

// cronField is one field of a cron expression: its bounds, and names for the numbers from first on.
type cronField struct {
	name        string
	first, last int
	names       []string
}

var (
	cronSecond     = cronField{name: "second", last: 59}
	cronMinute     = cronField{name: "minute", last: 59}
	cronHour       = cronField{name: "hour", last: 23}
	cronDayOfMonth = cronField{name: "day of month", first: 1, last: 31}
	cronMonth      = cronField{name: "month", first: 1, last: 12, names: []string{
		"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
	}}
	cronDayOfWeek = cronField{name: "day of week", last: 7, names: []string{
		"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday",
	}}
	cronYear = cronField{name: "year", first: 2000, last: 2100}
)

var cronShorthands = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// parseCron parses a cron expression as Temporal does, into a calendar or an interval, and its time zone. Temporal would
// parse it too, but reports errors only when the schedule is made, and returns calendars, which could not be compared with
// the expression.
func parseCron(text string) (calendar *client.ScheduleCalendarSpec, interval *client.ScheduleIntervalSpec, zone string, err error) {
	rest := strings.TrimSpace(text)
	if strings.HasPrefix(rest, "TZ=") || strings.HasPrefix(rest, "CRON_TZ=") {
		zone, rest, _ = strings.Cut(rest, " ")
		_, zone, _ = strings.Cut(zone, "=")
	}
	rest, comment, _ := strings.Cut(rest, "#")
	rest = strings.TrimSpace(rest)
	if every, ok := strings.CutPrefix(rest, "@every "); ok {
		interval, err = parseEvery(strings.TrimSpace(every))
		return nil, interval, zone, err
	}
	if long, ok := cronShorthands[rest]; ok {
		rest = long
	}
	tokens := strings.Fields(rest)
	switch len(tokens) {
	case 5:
		tokens = append(append([]string{"0"}, tokens...), "*")
	case 6:
		tokens = append([]string{"0"}, tokens...)
	case 7:
	default:
		return nil, nil, "", fmt.Errorf("it has %d fields, and must have 5 (minute, hour, day of month, month, day of week), 6 (with a year) or "+
			"7 (with a second before, and a year)", len(tokens))
	}
	calendar = &client.ScheduleCalendarSpec{Comment: strings.TrimSpace(comment)}
	for i, part := range []struct {
		field cronField
		to    *[]client.ScheduleRange
	}{
		{cronSecond, &calendar.Second},
		{cronMinute, &calendar.Minute},
		{cronHour, &calendar.Hour},
		{cronDayOfMonth, &calendar.DayOfMonth},
		{cronMonth, &calendar.Month},
		{cronDayOfWeek, &calendar.DayOfWeek},
		{cronYear, &calendar.Year},
	} {
		if *part.to, err = part.field.parseField(tokens[i]); err != nil {
			return nil, nil, "", err
		}
	}
	return calendar, nil, zone, nil
}

// parseEvery parses the text after @every: an interval, and after a slash a phase.
func parseEvery(text string) (*client.ScheduleIntervalSpec, error) {
	every, phase, phased := strings.Cut(text, "/")
	var spec client.ScheduleIntervalSpec
	var err error
	if spec.Every, err = parseDays(every); err != nil {
		return nil, err
	}
	if phased {
		if spec.Offset, err = parseDays(phase); err != nil {
			return nil, err
		}
	}
	return &spec, nil
}

// parseDays is time.ParseDuration that also knows days.
func parseDays(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is no number of days", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(text)
}

// parseField parses one field: values and ranges, each with an optional step, between commas.
func (f cronField) parseField(token string) ([]client.ScheduleRange, error) {
	if f.name == cronYear.name && token == "*" {
		return nil, nil // every year
	}
	var all []client.ScheduleRange
	for part := range strings.SplitSeq(token, ",") {
		span, step, stepped := strings.Cut(part, "/")
		r := client.ScheduleRange{Start: f.first, End: f.last, Step: 1}
		if f.name == cronDayOfWeek.name && span == "*" {
			r.End = 6
		}
		var err error
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			if r.Start, err = f.parseValue(from); err != nil {
				return nil, err
			}
			switch {
			case ranged:
				if r.End, err = f.parseValue(to); err != nil {
					return nil, err
				}
			case !stepped:
				r.End = r.Start
			}
		}
		if stepped {
			if r.Step, err = strconv.Atoi(step); err != nil || r.Step < 1 {
				return nil, fmt.Errorf("its %s has the step %q, which must be a number from 1", f.name, step)
			}
		}
		if r.End < r.Start {
			return nil, fmt.Errorf("its %s has the range %q, which ends before it begins", f.name, span)
		}
		all = append(all, r)
	}
	if f.name == cronDayOfWeek.name {
		return normalizeSunday(all), nil
	}
	return all, nil
}

// parseValue parses a number, or the beginning of a name.
func (f cronField) parseValue(text string) (int, error) {
	for i, name := range f.names {
		if len(text) >= 3 && strings.HasPrefix(name, strings.ToLower(text)) {
			return f.first + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.first || n > f.last {
		return 0, fmt.Errorf("its %s has %q, which must be between %d and %d", f.name, text, f.first, f.last)
	}
	return n, nil
}

// normalizeSunday writes the seventh day of the week as 0, as Temporal does.
func normalizeSunday(ranges []client.ScheduleRange) (all []client.ScheduleRange) {
	for _, r := range ranges {
		sunday := r.End == 7 && (7-r.Start)%r.Step == 0
		if r.End = min(r.End, 6); r.Start <= r.End {
			all = append(all, r)
		}
		if sunday {
			all = append(all, client.ScheduleRange{Start: 0, End: 0, Step: 1})
		}
	}
	return all
}
