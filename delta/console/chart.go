package console

import (
	"fmt"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

// The server draws charts as SVG: they need no script, arrive with the page, and print. A screen reader announces a chart as one image with a summary
// sentence, and the figures are in a table below it; a canvas, which uPlot would draw, has no text. Colours are classes of the stylesheet, because
// the content policy allows no inline style. Zooming and a cursor, which such a library adds, are not worth 50 KB of script.

const (
	chartWidth  = 720
	chartHeight = 120
)

// outcomeSeries groups the outcomes that a chart shows together, by CSS class.
var outcomeSeries = []struct {
	class, name string
	outcomes    []delta.Outcome
}{
	{"good", "synced", []delta.Outcome{delta.OutcomeSynced, delta.OutcomeFinalized}},
	{"other", "deleted or snoozed", []delta.Outcome{delta.OutcomeDeleted, delta.OutcomeSnoozed}},
	{"warn", "failed", []delta.Outcome{delta.OutcomeFailed, delta.OutcomeUndecodable}},
	{"bad", "degraded", []delta.Outcome{delta.OutcomeDegraded}},
}

// attemptsOf returns the attempts of a figure by series, and their total.
func attemptsOf(f *delta.Figure) (by []int64, all int64) {
	by = make([]int64, len(outcomeSeries))
	for i, s := range outcomeSeries {
		for _, outcome := range s.outcomes {
			by[i] += f.Attempts[outcome]
			all += f.Attempts[outcome]
		}
	}
	return by, all
}

// bar is a rectangle of a chart, with its tooltip.
type bar struct {
	X, Y, Width, Height float64
	Class, Title        string
}

// chart is a bar chart of attempts, or a line chart of durations.
type chart struct {
	// Summary describes the chart in words, Most labels its top, and From and To label its ends.
	Summary, Most, From, To string
	Bars                    []bar
	// P50 and P95 are SVG paths; empty in a chart of attempts.
	P50, P95 string
	Width    int
	Height   int
}

// figureSteps are the figures of a kind for each step of a span; a step in which no attempt ended is nil.
type figureSteps struct {
	from time.Time
	step time.Duration
	all  []*delta.Figure
}

// arrangeFigures sorts figures into their steps.
func arrangeFigures(figures []delta.Figure, from time.Time, step time.Duration, n int) figureSteps {
	s := figureSteps{from: from, step: step, all: make([]*delta.Figure, n)}
	for i := range figures {
		if at := int(figures[i].Minute.Sub(from) / step); at >= 0 && at < n {
			s.all[at] = &figures[i]
		}
	}
	return s
}

// startOf returns the time at which a step begins.
func (s figureSteps) startOf(i int) time.Time { return s.from.Add(time.Duration(i) * s.step) }

func (s figureSteps) newChart() chart {
	const layout = "02 Jan 15:04"
	return chart{From: s.from.Format(layout), To: s.startOf(len(s.all)).Format(layout) + " UTC", Width: chartWidth, Height: chartHeight}
}

// attemptChart draws how many attempts ended, by outcome.
func (s figureSteps) attemptChart() chart {
	c := s.newChart()
	most, total := int64(0), make([]int64, len(outcomeSeries))
	for _, f := range s.all {
		if f == nil {
			continue
		}
		by, all := attemptsOf(f)
		most = max(most, all)
		for i := range by {
			total[i] += by[i]
		}
	}
	c.Most = wording.Count(most, "attempt") + " in " + wording.Duration(s.step)
	var words []string
	for i, n := range total {
		words = append(words, wording.Number(n)+" "+outcomeSeries[i].name)
	}
	c.Summary = "Attempts in steps of " + wording.Duration(s.step) + ": " + strings.Join(words, ", ") + ". At most " + c.Most + "."
	width := float64(chartWidth) / float64(max(len(s.all), 1))
	for i, f := range s.all {
		if f == nil || most == 0 {
			continue
		}
		by, _ := attemptsOf(f)
		y := float64(chartHeight)
		for j, n := range by {
			if n == 0 {
				continue
			}
			height := max(float64(n)/float64(most)*chartHeight, 1) // so that one of thousands is visible
			y -= height
			c.Bars = append(c.Bars, bar{
				X: roundHundredths(float64(i) * width), Y: roundHundredths(max(y, 0)), Width: roundHundredths(max(width-1, 0.5)), Height: roundHundredths(height), Class: outcomeSeries[j].class,
				Title: fmt.Sprintf("%s: %s %s", s.startOf(i).Format("15:04"), wording.Number(n), outcomeSeries[j].name),
			})
		}
	}
	return c
}

// durationChart draws how long calls took.
func (s figureSteps) durationChart() chart {
	c := s.newChart()
	most, last := time.Duration(0), (*delta.Figure)(nil)
	for _, f := range s.all {
		if f != nil && f.P95 > 0 {
			most, last = max(most, f.P95), f
		}
	}
	if last == nil {
		c.Summary = "No call was made."
		return c
	}
	c.Most = durationText(most)
	c.Summary = fmt.Sprintf("How long calls took: lately half of them at most %s, and 95 of 100 at most %s. The highest of these is %s.", durationText(last.P50), durationText(last.P95), c.Most)
	c.P50 = s.linePath(most, func(f *delta.Figure) time.Duration { return f.P50 })
	c.P95 = s.linePath(most, func(f *delta.Figure) time.Duration { return f.P95 })
	return c
}

// linePath draws a line through the steps that have a value: a step without one breaks it, and a single step is a short line.
func (s figureSteps) linePath(most time.Duration, of func(*delta.Figure) time.Duration) string {
	var path strings.Builder
	width := float64(chartWidth) / float64(max(len(s.all), 1))
	isDrawing := false
	for i, f := range s.all {
		if f == nil || of(f) == 0 {
			isDrawing = false
			continue
		}
		x, y := float64(i)*width, (1-float64(of(f))/float64(most))*(chartHeight-4)+2
		command := "L"
		if !isDrawing {
			command = "M"
		}
		fmt.Fprintf(&path, "%s%g %g H%g", command, roundHundredths(x), roundHundredths(y), roundHundredths(x+width))
		isDrawing = true
	}
	return path.String()
}

func roundHundredths(x float64) float64 { return float64(int(x*100+0.5)) / 100 }

// durationText returns how long a call took, as exactly as it is known.
func durationText(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return wording.Duration(d)
}

// stepRow is a step as a row of a table.
type stepRow struct {
	At       string
	Attempts []int64
	P50, P95 string
}

// tableRows returns the steps in which an attempt ended, the latest first.
func (s figureSteps) tableRows() (all []stepRow) {
	for i := len(s.all) - 1; i >= 0; i-- {
		if f := s.all[i]; f != nil {
			by, _ := attemptsOf(f)
			all = append(all, stepRow{s.startOf(i).Format("02 Jan 15:04"), by, durationText(f.P50), durationText(f.P95)})
		}
	}
	return all
}
