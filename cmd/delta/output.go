package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
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
