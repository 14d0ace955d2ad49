package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Names of the figures from which the model is computed.
const (
	singleName    = "resources synced"
	fillName      = "first sync in batches"
	besideName    = "synced beside a large table"
	diskName      = "disk of a resource"
	memoryAtRest  = "at rest: client memory"
	workflowsOpen = "at rest: workflows open"
)

// model extrapolates the cost of more resources on a machine like the measured one.
//
// The rate in batches falls as a power of the table's rows, r(n) = r1 * (n / 10^6)^-a up to a million, and with the exponent b beyond, where indexes no
// longer fit into caches. All are fitted to the measurements: r1 is the rate of the first million, a gives the measured ratio of the rates beside 10,000
// and beside 1,000,000 rows, and b that of the first and the last part of `make bench-large`, which is another run. If the rate did not fall, an exponent
// is 0. The rate with one workflow each is limited by Temporal, not by the table.
type model struct {
	r1, a, b, single float64
	// large is the number of rows up to which b is measured.
	large           float64
	bytesEach       float64
	workflowsEach   float64
	largeTo, smallN float64
}

// newModel fits the model to a run of all figures, and to one of a large table.
func newModel(r report, large largeReport) (m model, err error) {
	m.largeTo, m.smallN = largeTable*r.Facts.Scale, smallTable*r.Facts.Scale
	for _, f := range r.Figures {
		switch f.Name {
		case singleName:
			m.single = f.Delta
		case fillName:
			m.r1 = f.Delta
		case besideName:
			m.a = max(-math.Log(f.Ratio)/math.Log(m.largeTo/m.smallN), 0)
		case diskName:
			m.bytesEach = f.Delta
		case workflowsOpen:
			m.workflowsEach = f.Delta / m.largeTo
		}
	}
	if m.single == 0 || m.r1 == 0 || m.bytesEach == 0 {
		return m, fmt.Errorf("the model needs %q, %q, %q and %q: measure them in one run", singleName, fillName, besideName, diskName)
	}
	if len(large.Slices) < 2 {
		return m, errors.New("the model needs the first and the last part of a large table: make bench-large")
	}
	first, last := large.Slices[0], large.Slices[len(large.Slices)-1]
	m.b, m.large = max(-math.Log(last.PerSecond/first.PerSecond)/math.Log(float64(last.There)/float64(first.There)), 0), float64(large.Rows)
	return m, nil
}

// perSecond returns the resources synced in a second in a table of n rows.
func (m model) perSecond(n float64, batches bool) float64 {
	if !batches {
		return m.single
	}
	if n > largeTable {
		return m.r1 * math.Pow(n/largeTable, -m.b)
	}
	return m.r1 * math.Pow(n/largeTable, -m.a)
}

// origin returns where the times in batches of so many resources come from.
func (m model) origin(n float64) string {
	switch {
	case n <= m.largeTo:
		return "measured"
	case n <= m.large:
		return "fitted"
	default:
		return "simulated"
	}
}

// firstSync returns the time that syncing n new resources takes.
func (m model) firstSync(n float64, batches bool) time.Duration {
	return time.Duration(n / m.perSecond(n, batches) * float64(time.Second))
}

// renderTable renders the model for several numbers of resources.
func (m model) renderTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "r(n) = %.0f/s × (n / 10⁶)^−%.3f in batches up to a million, and × (n / 10⁶)^−%.3f beyond; %.0f/s with one workflow each; %.0f bytes a resource with its indexes.\n\n",
		m.r1, m.a, m.b, m.single, m.bytesEach)
	b.WriteString("| resources | times in batches | first sync, batches | first sync, one workflow each | shortest expiry that batches keep up with, at half load | on disk | workflows open at rest, batches of 1000 |\n")
	b.WriteString("|---:|---|---:|---:|---:|---:|---:|\n")
	for _, n := range []float64{1e6, 3e6, 1e7, 3e7, 1e8} {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.1f GB | %.0f |\n", formatCount(n), m.origin(n), formatDuration(m.firstSync(n, true)), formatDuration(m.firstSync(n, false)),
			formatDuration(2*m.firstSync(n, true)), n*m.bytesEach/1e9, n*m.workflowsEach)
	}
	return b.String()
}

// formatDuration formats a time in a readable unit.
func formatDuration(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}
