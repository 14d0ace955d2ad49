package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// outputFormat is the value of --output.
type outputFormat string

const (
	outputTable outputFormat = "table"
	outputJSON  outputFormat = "json"
)

func (f *outputFormat) String() string { return string(*f) }
func (*outputFormat) Type() string     { return "format" }

func (f *outputFormat) Set(value string) error {
	switch outputFormat(value) {
	case outputTable, outputJSON:
		*f = outputFormat(value)
		return nil
	}
	return fmt.Errorf("must be table or json")
}

// json prints one value as JSON, and tells whether that was asked for.
func (c *cli) json(v any) (bool, error) {
	if c.output != outputJSON {
		return false, nil
	}
	encoder := json.NewEncoder(c.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return true, encoder.Encode(v)
}

const (
	columnGap  = 2
	leastShown = 12
)

// table prints rows under headers. On a terminal that is too narrow the cells
// of one column are shortened.
func (c *cli) table(headers []string, rows [][]string, shorten int) error {
	widths := make([]int, len(headers))
	total := -columnGap
	for i := range headers {
		for _, row := range append([][]string{headers}, rows...) {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		total += widths[i] + columnGap
	}
	if c.width > 0 && total > c.width {
		room := max(widths[shorten]-(total-c.width), leastShown)
		for _, row := range rows {
			row[shorten] = cut(row[shorten], room)
		}
	}
	w := tabwriter.NewWriter(trimmed{c.out}, 0, 0, columnGap, ' ', 0)
	for _, row := range append([][]string{headers}, rows...) {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// trimmed takes the blanks off the ends of lines.
type trimmed struct{ to io.Writer }

func (t trimmed) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		text := strings.TrimRight(line, " \n")
		if strings.HasSuffix(line, "\n") {
			text += "\n"
		} else {
			text = line
		}
		if _, err := io.WriteString(t.to, text); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// cut shortens a text to so many characters.
func cut(s string, room int) string {
	if utf8.RuneCountInString(s) <= room {
		return s
	}
	return string([]rune(s)[:room-1]) + "…"
}

// plain makes a text of others safe for a terminal, on one line.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// wrap breaks a text into lines of so many characters; 0 leaves it as it is.
func wrap(s string, width int) []string {
	if width <= 0 {
		return []string{s}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), word
			continue
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}

// number writes a count with commas.
func number[T int | int64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// counted writes a count and what is counted, whose plural ends in s.
func counted[T int | int64](n T, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// often shows an interval: parts of a second of a short one count.
func often(d time.Duration) string {
	if d > 0 && d < time.Minute && d%time.Second != 0 {
		return d.Round(time.Millisecond).String()
	}
	return short(d)
}

// short writes a duration in one or two units.
func short(d time.Duration) string {
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
		return "-" + short(-d)
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

// when writes a time as seen from now; - for none.
func when(t *time.Time, now time.Time) string {
	switch {
	case t == nil:
		return "-"
	case t.Sub(now) >= time.Second:
		return "in " + short(t.Sub(now))
	case now.Sub(*t) < time.Second:
		return "now"
	}
	return short(now.Sub(*t)) + " ago"
}
