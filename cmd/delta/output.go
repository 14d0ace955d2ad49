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

// printJSON prints one value as JSON if --output is json, and reports whether it is.
func (c *cli) printJSON(v any) (bool, error) {
	if c.output != outputJSON {
		return false, nil
	}
	encoder := json.NewEncoder(c.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return true, encoder.Encode(v)
}

const (
	columnGap      = 2
	minColumnWidth = 12
)

// printTable prints rows under headers. If the terminal is too narrow, it shortens the cells of one column.
func (c *cli) printTable(headers []string, rows [][]string, shorten int) error {
	widths := make([]int, len(headers))
	total := -columnGap
	for i := range headers {
		for _, row := range append([][]string{headers}, rows...) {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		total += widths[i] + columnGap
	}
	if c.width > 0 && total > c.width {
		room := max(widths[shorten]-(total-c.width), minColumnWidth)
		for _, row := range rows {
			row[shorten] = truncateText(row[shorten], room)
		}
	}
	w := tabwriter.NewWriter(trimWriter{c.out}, 0, 0, columnGap, ' ', 0)
	for _, row := range append([][]string{headers}, rows...) {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// trimWriter removes spaces at the ends of lines.
type trimWriter struct{ to io.Writer }

func (t trimWriter) Write(p []byte) (int, error) {
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

// truncateText shortens a text to room characters.
func truncateText(s string, room int) string {
	if utf8.RuneCountInString(s) <= room {
		return s
	}
	return string([]rune(s)[:room-1]) + "…"
}

// wrapText breaks a text into lines of at most width characters; width 0 leaves it as it is.
func wrapText(s string, width int) []string {
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
