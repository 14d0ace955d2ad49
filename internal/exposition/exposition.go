// Package exposition writes metrics in Prometheus' text format, for the servers of this module.
package exposition

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ContentType is the content type of the text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Family is a metric with all its labels.
type Family struct {
	// Name is the metric's name, Type its type in Prometheus: counter, gauge, histogram or summary. Help is a sentence.
	Name, Type, Help string
}

// Table has the families of a server.
type Table struct {
	families []Family
	// byName maps the name of a sample to its family, because a histogram's samples have longer names than the family.
	byName map[string]string
}

// NewTable returns a table of families, which are written in this order. Samples of other families are not written.
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

// Text collects samples and writes them with HELP and TYPE, grouped by family, as the format demands
// (https://prometheus.io/docs/instrumenting/exposition_formats). ExposeMetadata of VictoriaMetrics' package metrics was rejected, because its help is
// empty, and it is a switch for the whole program, which this package must not change.
type Text struct {
	table   *Table
	samples map[string][]string
}

// New returns a text without samples.
func (t *Table) New() *Text { return &Text{t, map[string][]string{}} }

// Add adds a sample. labels come from Labels, or are empty.
func (e *Text) Add(name, labels string, value float64) {
	e.addLine(name, fmt.Sprintf("%s%s %v", name, labels, value))
}

// Flag returns the value of a boolean sample: 1 for true.
func Flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

var escaped = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// Labels formats the labels of a sample from names and values in turn.
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

func (e *Text) addLine(name, line string) {
	if family, ok := e.table.byName[name]; ok {
		e.samples[family] = append(e.samples[family], line)
	}
}

// Include adds the samples that a function of VictoriaMetrics' package metrics writes.
func (e *Text) Include(write func(io.Writer)) {
	var text bytes.Buffer
	write(&text)
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' { // the program may have turned on ExposeMetadata
			continue
		}
		e.addLine(line[:strings.IndexAny(line, "{ ")], line)
	}
}

// WriteTo writes the samples with one call of w.Write.
func (e *Text) WriteTo(w io.Writer) (int64, error) {
	var text bytes.Buffer
	for _, f := range e.table.families {
		lines := e.samples[f.Name]
		if len(lines) == 0 {
			continue
		}
		if f.Type == "gauge" || f.Type == "counter" { // samples of the other types have a prescribed order
			slices.Sort(lines)
		}
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s %s\n", f.Name, f.Help, f.Name, f.Type)
		for _, line := range lines {
			text.WriteString(line + "\n")
		}
	}
	return text.WriteTo(w)
}
