package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// largeReportFile is the report from which the measured part of scaling.md is rendered.
const largeReportFile = "benchmarks-large.json"

// largeReport is the report of a run.
type largeReport struct {
	Facts facts `json:"facts"`
	// Rows is the number of resources at the end. Loaded is how many of them were loaded instead of synced, because there was no time.
	Rows            int          `json:"rows"`
	Loaded          int          `json:"loaded"`
	LoadedPerSecond float64      `json:"loaded_per_second,omitempty"`
	Took            float64      `json:"took_seconds"`
	Slices          []slicePart  `json:"first_sync"`
	WAL             int64        `json:"wal_bytes"`
	Sizes           []sizePart   `json:"sizes"`
	Costs           []costPart   `json:"costs"`
	Expiry          *expiryPart  `json:"expiry"`
	Vacuum          []vacuumPart `json:"vacuum"`
	VacuumTook      float64      `json:"vacuum_seconds"`
	Memory          []memoryPart `json:"memory"`
}

// slicePart is a part of the first sync.
type slicePart struct {
	Rows int `json:"rows"`
	// There is the number of resources after this part.
	There     int     `json:"there"`
	PerSecond float64 `json:"per_second"`
}

// sizePart is the size of the table or of an index.
type sizePart struct {
	Relation string `json:"relation"`
	Bytes    int64  `json:"bytes"`
}

// costPart is the cost of a statement.
type costPart struct {
	Name         string  `json:"name"`
	When         string  `json:"when"`
	Milliseconds float64 `json:"milliseconds"`
	Buffers      float64 `json:"buffers"`
}

// expiryPart is the measured expiry of a part of the resources.
type expiryPart struct {
	Rows      int     `json:"rows"`
	FirstSync float64 `json:"first_sync_seconds"`
	// Missed says why the other fields could not be measured.
	Missed string `json:"missed,omitempty"`
	// DueWithin is the time from the first due time to the last. SyncedWithin is the time from the first due time until the last resource was synced.
	DueWithin    float64 `json:"due_within_seconds"`
	SyncedWithin float64 `json:"synced_within_seconds"`
	PerSecond    float64 `json:"per_second"`
}

// vacuumPart has the counters of dead rows and vacuums of the table.
type vacuumPart struct {
	When         string `json:"when"`
	Live         int64  `json:"live"`
	Dead         int64  `json:"dead"`
	Updates      int64  `json:"updates"`
	HOT          int64  `json:"hot_updates"`
	Autovacuums  int64  `json:"autovacuums"`
	Autoanalyzes int64  `json:"autoanalyzes"`
	// Running reports whether autovacuum was working on the table.
	Running bool  `json:"running"`
	Bytes   int64 `json:"bytes"`
}

// memoryPart is the memory of the client and of Temporal at a number of resources. Resident is 0 on systems other than Linux.
type memoryPart struct {
	There            int   `json:"there"`
	Heap             int64 `json:"heap_bytes"`
	Resident         int64 `json:"resident_bytes,omitempty"`
	Goroutines       int   `json:"goroutines"`
	TemporalResident int64 `json:"temporal_resident_bytes,omitempty"`
	TemporalStore    int64 `json:"temporal_store_bytes"`
}

// print writes the report to a terminal, as the Markdown of the docs.
func (r largeReport) print(w io.Writer) { _, _ = io.WriteString(w, r.renderMarkdown()) }

func (r largeReport) renderMarkdown() string {
	var b strings.Builder
	for _, part := range []func(*strings.Builder){r.writeSync, r.writeSizes, r.writeCosts, r.writeDead, r.writeMemory} {
		part(&b)
	}
	d := r.Facts
	fmt.Fprintf(&b, "%d resources in batches of %d, measured once, in %s; Work does nothing. %s; %d cores (%s, %s; load %s at the start), %s, "+
		"Postgres %s with its default settings%s, Temporal %s (development server, its store in a file). The client keeps %d workflows in its cache.\n",
		r.Rows, batchSize, formatDuration(time.Duration(r.Took)*time.Second), d.Date.Format(time.DateOnly), d.Cores, d.OS, d.CPU, d.Load, d.Go, d.Postgres,
		map[bool]string{true: "", false: ", which does not wait for the disk"}[d.Durable], d.Temporal, cachedWorkflows)
	return b.String()
}

func (r largeReport) writeSync(b *strings.Builder) {
	if len(r.Slices) == 0 {
		return
	}
	b.WriteString("| synced | resources there | rate |\n|---|---:|---:|\n")
	first, last := r.Slices[0], r.Slices[len(r.Slices)-1]
	fmt.Fprintf(b, "| the first %d | %d | %.0f/s |\n", first.Rows, first.There, first.PerSecond)
	fmt.Fprintf(b, "| the last %d | %d | %.0f/s |\n", last.Rows, last.There, last.PerSecond)
	if e := r.Expiry; e != nil && e.Missed == "" {
		fmt.Fprintf(b, "| %d that expired within %.1f s, synced again within %.1f s | %d | %.0f/s |\n", e.Rows, e.DueWithin, e.SyncedWithin, r.Rows, e.PerSecond)
	} else if e != nil {
		fmt.Fprintf(b, "| %d that expired: not measured, %s | %d | |\n", e.Rows, e.Missed, r.Rows)
	}
	b.WriteString("\n")
	if r.Loaded > 0 {
		fmt.Fprintf(b, "**%d of the %d were not synced through Delta, but loaded as rows that look as if they had been** (%.0f/s), since there was no time "+
			"for more. They have no workflows: what is said of Temporal is of %d resources, and they leave no dead rows.\n\n",
			r.Loaded, r.Rows, r.LoadedPerSecond, r.Rows-r.Loaded)
	}
}

func (r largeReport) writeSizes(b *strings.Builder) {
	if len(r.Sizes) == 0 {
		return
	}
	rows := r.Slices[len(r.Slices)-1].There
	b.WriteString("| after the first sync | size | a resource |\n|---|---:|---:|\n")
	var total int64
	for _, s := range r.Sizes {
		total += s.Bytes
		fmt.Fprintf(b, "| %s | %s | %d B |\n", s.Relation, formatMegabytes(s.Bytes), s.Bytes/int64(rows))
	}
	fmt.Fprintf(b, "| all of it | %s | %d B |\n| log written (WAL) | %s | %d B |\n\n", formatMegabytes(total), total/int64(rows), formatMegabytes(r.WAL), r.WAL/int64(rows))
}

func (r largeReport) writeCosts(b *strings.Builder) {
	if len(r.Costs) == 0 {
		return
	}
	b.WriteString("| statement | when | time | pages looked at |\n|---|---|---:|---:|\n")
	for _, c := range r.Costs {
		fmt.Fprintf(b, "| %s | %s | %.2f ms | %.0f |\n", c.Name, c.When, c.Milliseconds, c.Buffers)
	}
	b.WriteString("\n")
}

func (r largeReport) writeDead(b *strings.Builder) {
	if len(r.Vacuum) == 0 {
		return
	}
	b.WriteString("| table and indexes | size | dead rows | updates, of them HOT | autovacuums done | one at work |\n|---|---:|---:|---:|---:|---|\n")
	for _, v := range r.Vacuum {
		fmt.Fprintf(b, "| %s | %s | %d | %d, %.0f%% | %d | %s |\n", v.When, formatMegabytes(v.Bytes), v.Dead, v.Updates, 100*float64(v.HOT)/float64(max(v.Updates, 1)),
			v.Autovacuums, map[bool]string{true: "yes", false: "no"}[v.Running])
	}
	if r.VacuumTook > 0 {
		fmt.Fprintf(b, "\nThe `VACUUM ANALYZE` took %.0f s. Of the dead rows after the expiry, %d are of the leases that were timed above and rolled back.\n",
			r.VacuumTook, rolledBack)
	}
	b.WriteString("\n")
}

func (r largeReport) writeMemory(b *strings.Builder) {
	if len(r.Memory) == 0 {
		return
	}
	b.WriteString("| resources there | client's heap | its memory (RSS) | goroutines | Temporal's memory | Temporal's store |\n|---:|---:|---:|---:|---:|---:|\n")
	for i, m := range r.Memory {
		// Every fourth part of the first sync is enough to see growth.
		if i%4 != 0 && i < len(r.Memory)-2 {
			continue
		}
		fmt.Fprintf(b, "| %d | %s | %s | %d | %s | %s |\n", m.There, formatMegabytes(m.Heap), formatMegabytes(m.Resident), m.Goroutines, formatMegabytes(m.TemporalResident),
			formatMegabytes(m.TemporalStore))
	}
	b.WriteString("\n")
}

func formatMegabytes(bytes int64) string {
	if bytes < 10e6 {
		return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
	}
	return fmt.Sprintf("%.0f MB", float64(bytes)/1e6)
}

// notMeasured is the text in scaling.md before the first measurement.
const notMeasured = "Not measured yet: `make bench-large` measures it, and writes it here with `-docs docs`.\n"

// largePage renders scaling.md with a report, or with notMeasured if the report is nil.
func largePage(folder string, r *largeReport) (page, error) {
	const file = "scaling.md"
	old, err := os.ReadFile(filepath.Join(folder, file))
	if err != nil {
		return page{}, err
	}
	said := notMeasured
	if r != nil {
		said = r.renderMarkdown()
	}
	content, err := replaceBlock(string(old), "large", said)
	if err != nil {
		return page{}, fmt.Errorf("%s: %w", file, err)
	}
	return page{file, content}, nil
}

// readLarge reads the report beside the pages. It returns nil if there is none.
func readLarge(folder string) (*largeReport, error) {
	var r largeReport
	err := readJSON(filepath.Join(folder, largeReportFile), &r)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return &r, err
}
