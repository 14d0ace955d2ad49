// Package exposition writes metrics as Prometheus reads them, for the servers of this module that have some.
package exposition

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ContentType is that of the text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Family is a metric with all its labels.
type Family struct {
	// Name is that of the metric, Type what Prometheus calls it: counter, gauge, histogram or summary. Help is a sentence.
	Name, Type, Help string
}

// Table has the families of a server.
type Table struct {
	families []Family
	// byName is the family of a sample's name: that of a histogram is shorter.
	byName map[string]string
}

// NewTable makes a table of families, in the order in which they are written. What it does not have is not written.
func NewTable(families []Family) *Table {
	t := &Table{families, map[string]string{}}
	for _, f := range families {
		t.byName[f.Name] = f.Name
		if f.Type == "histogram" || f.Type == "summary" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				t.byName[f.Name+suffix] = f.Name
			}
		}
	}
	return t
}

// Text gathers samples and writes them with HELP and TYPE, all of a family together, as the format demands
// (https://prometheus.io/docs/instrumenting/exposition_formats). ExposeMetadata of the package metrics of VictoriaMetrics was rejected: its help is
// empty, and it is one switch for the whole program, which is not this package's to turn.
type Text struct {
	table   *Table
	samples map[string][]string
}

// New makes a text without samples.
func (t *Table) New() *Text { return &Text{t, map[string][]string{}} }

// Add takes a sample; labels are those that Labels makes, or empty.
func (e *Text) Add(name, labels string, value float64) {
	e.line(name, fmt.Sprintf("%s%s %v", name, labels, value))
}

// Flag is the value of a sample that says whether something is so: 1 if it is.
func Flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

var escaped = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// Labels are the labels of a sample, given as names and values.
func Labels(pairs ...string) string {
	var labels []string
	for i := 0; i < len(pairs); i += 2 {
		labels = append(labels, pairs[i]+`="`+escaped.Replace(pairs[i+1])+`"`)
	}
	if len(labels) == 0 {
		return ""
	}
	return "{" + strings.Join(labels, ",") + "}"
}

func (e *Text) line(name, line string) {
	if family, ok := e.table.byName[name]; ok {
		e.samples[family] = append(e.samples[family], line)
	}
}

// Include takes the samples that a function of the package metrics of VictoriaMetrics writes.
func (e *Text) Include(write func(io.Writer)) {
	var text bytes.Buffer
	write(&text)
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' { // the program may have switched on ExposeMetadata
			continue
		}
		e.line(line[:strings.IndexAny(line, "{ ")], line)
	}
}

// WriteTo writes the samples, at once.
func (e *Text) WriteTo(w io.Writer) (int64, error) {
	var text bytes.Buffer
	for _, f := range e.table.families {
		lines := e.samples[f.Name]
		if len(lines) == 0 {
			continue
		}
		if f.Type == "gauge" || f.Type == "counter" { // those of the others have an order of their own
			slices.Sort(lines)
		}
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s %s\n", f.Name, f.Help, f.Name, f.Type)
		for _, line := range lines {
			text.WriteString(line + "\n")
		}
	}
	return text.WriteTo(w)
}
