package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"go.temporal.io/api/workflowservice/v1"
)

// report is the report of a run.
type report struct {
	Facts   facts    `json:"facts"`
	Figures []figure `json:"figures"`
}

// facts has the details of the machine that a reader needs to judge absolute numbers.
type facts struct {
	Date     time.Time `json:"date"`
	OS       string    `json:"os"`
	CPU      string    `json:"cpu,omitempty"`
	Cores    int       `json:"cores"`
	Load     string    `json:"load_at_start,omitempty"`
	Go       string    `json:"go"`
	Postgres string    `json:"postgres"`
	Temporal string    `json:"temporal"`
	// Cluster reports whether Temporal was a cluster on Postgres, rather than a development server.
	Cluster bool    `json:"cluster,omitempty"`
	Durable bool    `json:"durable"`
	Pool    int     `json:"pool"`
	Rounds  int     `json:"rounds"`
	Scale   float64 `json:"scale"`
}

func (b *bench) collectFacts(ctx context.Context) facts {
	f := facts{
		Date: time.Now().UTC().Truncate(time.Second), OS: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(),
		Cores: runtime.NumCPU(), Go: runtime.Version(), Postgres: "unknown", Temporal: "unknown",
		Cluster: b.cluster != nil, Durable: b.durable, Pool: b.options.pool, Rounds: b.rounds, Scale: b.scale,
	}
	// An unknown version does not stop the run.
	_ = b.pool.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&f.Postgres)
	if info, err := b.temporal.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}); err == nil {
		f.Temporal = info.GetServerVersion()
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		f.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return f
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(info) {
		if name, value, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (r report) hasMissed() bool {
	for _, f := range r.Figures {
		if !f.Met {
			return true
		}
	}
	return false
}

// print writes the table.
func (r report) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) }
	row("figure", "Delta", "bare", "ratio", "target", "")
	for _, f := range r.Figures {
		target, verdict := f.formatTarget()
		row(f.Name, f.formatValue(f.Delta), f.formatBare(), f.formatRatio(), target, verdict)
	}
	_ = table.Flush()
	d := "does not wait for the disk"
	if r.Facts.Durable {
		d = "waits for the disk"
	}
	temporal := "development server"
	if r.Facts.Cluster {
		temporal = "a cluster on Postgres, two processes of each service"
	}
	_, _ = fmt.Fprintf(w, "\nMedians of %d rounds in which Delta and the bare thing take turns; the ratio is the median of the rounds' ratios.\n"+
		"%s; %d cores (%s, %s; load %s), %s, Postgres %s (%s), Temporal %s (%s).\n",
		r.Facts.Rounds, r.Facts.Date.Format(time.DateOnly), r.Facts.Cores, r.Facts.OS, r.Facts.CPU, r.Facts.Load,
		r.Facts.Go, r.Facts.Postgres, d, r.Facts.Temporal, temporal)
}

// formatValue formats a value in the figure's unit, with at most three digits, because the noise is larger than the others.
func (f figure) formatValue(v float64) string {
	switch {
	case f.Unit == "ms":
		return fmt.Sprintf("%.1f ms", v)
	case v < 10 && v != math.Trunc(v):
		return fmt.Sprintf("%.1f%s", v, f.Unit)
	}
	return fmt.Sprintf("%.0f%s", v, f.Unit)
}

func (f figure) formatBare() string {
	if f.hasNoBare() {
		return ""
	}
	return f.formatValue(f.Bare)
}

func (f figure) formatRatio() string {
	if f.hasNoBare() {
		return ""
	}
	return fmt.Sprintf("%.2f", f.Ratio)
}

// writeJSON writes a report into a file atomically.
func writeJSON(path string, report any) error {
	encoded, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".bench-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) //nolint:errcheck // after a success it is renamed already
	_, err = temporary.Write(append(encoded, '\n'))
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(temporary.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	return err
}
