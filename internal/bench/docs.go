package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// reportFile is the report from which the pages are rendered.
const reportFile = "benchmarks.json"

// page is a file of the docs with a report, as a whole or between marks.
type page struct {
	file    string
	content string
}

// beginMark and end are the marks around a block in a page.
func beginMark(block string) string { return "<!-- bench:" + block + " -->\n" }

const end = "<!-- /bench -->"

// renderPages renders the pages of the docs from a report.
func renderPages(folder string, r report) ([]page, error) {
	large, err := readLarge(folder)
	if err != nil {
		return nil, err
	}
	if large == nil {
		large = &largeReport{}
	}
	m, err := newModel(r, *large)
	if err != nil {
		return nil, err
	}
	all := []page{
		{filepath.Join("images", "bench-rates.svg"), plotRates(r.Figures)},
		{filepath.Join("images", "bench-latency.svg"), plotLatency(r.Figures)},
		{filepath.Join("images", "scaling.svg"), plotModel(m)},
	}
	for _, block := range []struct{ file, name, content string }{
		{"benchmarks.md", "figures", r.renderMarkdown()},
		{"scaling.md", "model", m.renderTable()},
		{filepath.Join("..", "README.md"), "highlights", r.renderHighlights()},
	} {
		old, err := os.ReadFile(filepath.Join(folder, block.file))
		if err != nil {
			return nil, err
		}
		content, err := replaceBlock(string(old), block.name, block.content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", block.file, err)
		}
		all = append(all, page{block.file, content})
	}
	return all, nil
}

func replaceBlock(text, block, content string) (string, error) {
	before, rest, found := strings.Cut(text, beginMark(block))
	if !found {
		return "", fmt.Errorf("there is no %q", strings.TrimSpace(beginMark(block)))
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("there is no %q", end)
	}
	return before + beginMark(block) + content + end + after, nil
}

// writeDocs writes a report into the docs.
func writeDocs(folder string, r report) error {
	if err := writeJSON(filepath.Join(folder, reportFile), r); err != nil {
		return err
	}
	all, err := renderPages(folder, r)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := os.WriteFile(filepath.Join(folder, p.file), []byte(p.content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// readJSON reads a file of writeJSON.
func readJSON(path string, report any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, report)
}

// renderTable renders a line for each figure.
func renderTable(figures []figure) string {
	var b strings.Builder
	b.WriteString("| figure | Delta | bare | ratio | target | |\n|---|---:|---:|---:|---:|---|\n")
	for _, f := range figures {
		target, verdict := f.formatTarget()
		if verdict == "MISS" {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.Name, f.formatValue(f.Delta), f.formatBare(), f.formatRatio(), target, verdict)
	}
	return b.String()
}

// renderHighlights renders the figures for the README.
func (r report) renderHighlights() string {
	var chosen []figure
	for _, name := range []string{
		"Inform, new object", "InformMany, 100000 new objects", singleName, "resources synced, beside an eager start",
		"resources synced in batches", besideRiverName, besideDBOSName, besideName, "Inform to synced, median", "Inform to synced, p95", "messagedb, write",
		"cdc, changes streamed", "delta stream, changes through a websocket",
	} {
		if i := slices.IndexFunc(r.Figures, func(f figure) bool { return f.Name == name }); i >= 0 {
			chosen = append(chosen, r.Figures[i])
		}
	}
	return renderTable(chosen)
}

// renderMarkdown renders the report as a table with explanations of the figures.
func (r report) renderMarkdown() string {
	var b strings.Builder
	b.WriteString(renderTable(r.Figures))
	b.WriteString("\nWhat each of them is:\n\n")
	said := map[string]bool{}
	for _, f := range r.Figures {
		if !said[f.What] {
			said[f.What] = true
			fmt.Fprintf(&b, "- *%s*: %s.\n", f.Name, f.What)
		}
	}
	d := r.Facts
	fmt.Fprintf(&b, "\n%s; %d cores (%s, %s; load %s at the start), %s, Postgres %s, Temporal %s (development server, in memory); medians of %d rounds, scale %g.\n",
		d.Date.Format(time.DateOnly), d.Cores, d.OS, d.CPU, d.Load, d.Go, d.Postgres, d.Temporal, d.Rounds, d.Scale)
	return b.String()
}
