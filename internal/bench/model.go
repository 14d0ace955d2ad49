package main

import (
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
// The rate in batches falls as a power of the table's rows, r(n) = r1 * (n / 10^6)^-a. Both parameters are fitted to the measurements: r1 is the rate of
// the first million, and a gives the measured ratio of the rates beside 10,000 and beside 1,000,000 rows. If the rate did not fall, a is 0. The rate with
// one workflow each is limited by Temporal, not by the table.
type model struct {
	r1, a, single   float64
	bytesEach       float64
	workflowsEach   float64
	largeTo, smallN float64
}

func newModel(r report) (m model, err error) {
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
	return m, nil
}

// perSecond returns the resources synced in a second in a table of n rows.
func (m model) perSecond(n float64, batches bool) float64 {
	if !batches {
		return m.single
	}
	return m.r1 * math.Pow(n/largeTable, -m.a)
}

// firstSync returns the time that syncing n new resources takes.
func (m model) firstSync(n float64, batches bool) time.Duration {
	return time.Duration(n / m.perSecond(n, batches) * float64(time.Second))
}

// renderTable renders the model for several numbers of resources.
func (m model) renderTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "r(n) = %.0f/s × (n / 10⁶)^−%.3f in batches; %.0f/s with one workflow each; %.0f bytes a resource with its indexes.\n\n",
		m.r1, m.a, m.single, m.bytesEach)
	b.WriteString("| resources | first sync, batches | first sync, one workflow each | shortest expiry that batches keep up with, at half load | on disk | workflows open at rest, batches of 1000 |\n")
	b.WriteString("|---:|---:|---:|---:|---:|---:|\n")
	for _, n := range []float64{1e6, 3e6, 1e7, 3e7, 1e8} {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f GB | %.0f |\n", formatCount(n), formatDuration(m.firstSync(n, true)), formatDuration(m.firstSync(n, false)),
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
