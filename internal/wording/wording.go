// Package wording writes counts, durations and times as a person reads them, so that the command, the checks of an installation and the console say
// the same.
package wording

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Line makes a text of others safe for a terminal, on one line.
func Line(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Number writes a count with commas.
func Number[T int | int64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Estimate writes an estimate with two digits that count, as ~990,000. What is below 10,000 is written as it is, without the sign: it was counted, or is of no
// importance beside the others.
func Estimate(n int64) string {
	unit := int64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	if n < 10_000 {
		return Number(n)
	}
	return "~" + Number((n+unit/2)/unit*unit)
}

// Count writes a count with its noun. The plural must end in s.
func Count[T int | int64](n T, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Number(n) + " " + what + "s"
}

// CountIs is Count with its verb.
func CountIs[T int | int64](n T, what string) string {
	if n == 1 {
		return Count(n, what) + " is"
	}
	return Count(n, what) + " are"
}

// Interval writes an interval: parts of a second of a short one count.
func Interval(d time.Duration) string {
	if d > 0 && d < time.Minute && d%time.Second != 0 {
		return d.Round(time.Millisecond).String()
	}
	return Duration(d)
}

// Duration writes a duration in one or two units.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	two := func(a, b time.Duration, units string) string {
		whole, rest := d/a, d%a/b
		if rest == 0 {
			return fmt.Sprintf("%d%c", whole, units[0])
		}
		return fmt.Sprintf("%d%c%d%c", whole, units[0], rest, units[1])
	}
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return two(time.Minute, time.Second, "ms")
	case d < day:
		return two(time.Hour, time.Minute, "hm")
	}
	return two(day, time.Hour, "dh")
}

// When writes a time as seen from now; - for none.
func When(t *time.Time, now time.Time) string {
	switch {
	case t == nil:
		return "-"
	case t.Sub(now) >= time.Second:
		return "in " + Duration(t.Sub(now))
	case now.Sub(*t) < time.Second:
		return "now"
	}
	return Duration(now.Sub(*t)) + " ago"
}

// Size writes a number of bytes.
func Size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
