package console

import (
	"fmt"
	"strings"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

// Charts are SVG that the server makes: they need no script, they are there when the page is, and they print. A chart is one image to a screen reader, with a
// sentence in words, and its figures are in a table below it; a canvas, as uPlot draws one, says nothing to it. Their colours are classes of the
// stylesheet, because the policy of the pages allows no inline style. What such a library has beyond that, zooming and a cursor, is not worth 50 KB of script.

const (
	chartWidth  = 720
	chartHeight = 120
)

// series are outcomes that a chart shows as one, by the class of their colour.
var series = []struct {
	class, name string
	outcomes    []delta.Outcome
}{
	{"good", "synced", []delta.Outcome{delta.OutcomeSynced, delta.OutcomeFinalized}},
	{"other", "deleted or put off", []delta.Outcome{delta.OutcomeDeleted, delta.OutcomeSnoozed}},
	{"warn", "failed", []delta.Outcome{delta.OutcomeFailed, delta.OutcomeUnreadable}},
	{"bad", "degraded", []delta.Outcome{delta.OutcomeDegraded}},
}

// attemptsOf are the attempts of a figure, by series, and how many they are in all.
func attemptsOf(f *delta.Figure) (by []int64, all int64) {
	by = make([]int64, len(series))
	for i, s := range series {
		for _, outcome := range s.outcomes {
			by[i] += f.Attempts[outcome]
			all += f.Attempts[outcome]
		}
	}
	return by, all
}

// bar is a rectangle of a chart, and what it stands for.
type bar struct {
	X, Y, Width, Height float64
	Class, Title        string
}

// chart is one of attempts, or of durations.
type chart struct {
	// Summary says in words what there is to see, Most what the top of the chart is, and From and To its ends.
	Summary, Most, From, To string
	Bars                    []bar
	// P50 and P95 are the paths of lines; empty in a chart of attempts.
	P50, P95 string
	Width    int
	Height   int
}

// steps are the figures of a kind at each step of a time; nil where no attempt ended.
type steps struct {
	from time.Time
	step time.Duration
	all  []*delta.Figure
}

// arrange puts figures into their places.
func arrange(figures []delta.Figure, from time.Time, step time.Duration, n int) steps {
	s := steps{from: from, step: step, all: make([]*delta.Figure, n)}
	for i := range figures {
		if at := int(figures[i].Minute.Sub(from) / step); at >= 0 && at < n {
			s.all[at] = &figures[i]
		}
	}
	return s
}

// at is when a step begins.
func (s steps) at(i int) time.Time { return s.from.Add(time.Duration(i) * s.step) }

func (s steps) new() chart {
	const layout = "02 Jan 15:04"
	return chart{From: s.from.Format(layout), To: s.at(len(s.all)).Format(layout) + " UTC", Width: chartWidth, Height: chartHeight}
}

// attempts is the chart of how many attempts ended, by what became of them.
func (s steps) attempts() chart {
	c := s.new()
	most, total := int64(0), make([]int64, len(series))
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
		words = append(words, wording.Number(n)+" "+series[i].name)
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
			height := max(float64(n)/float64(most)*chartHeight, 1) // one of thousands is to be seen
			y -= height
			c.Bars = append(c.Bars, bar{
				X: round(float64(i) * width), Y: round(max(y, 0)), Width: round(max(width-1, 0.5)), Height: round(height), Class: series[j].class,
				Title: fmt.Sprintf("%s: %s %s", s.at(i).Format("15:04"), wording.Number(n), series[j].name),
			})
		}
	}
	return c
}

// durations is the chart of how long calls took.
func (s steps) durations() chart {
	c := s.new()
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
	c.Most = took(most)
	c.Summary = fmt.Sprintf("How long calls took: lately half of them at most %s, and 95 of 100 at most %s. The highest of these is %s.", took(last.P50), took(last.P95), c.Most)
	c.P50 = s.line(most, func(f *delta.Figure) time.Duration { return f.P50 })
	c.P95 = s.line(most, func(f *delta.Figure) time.Duration { return f.P95 })
	return c
}

// line is a path through the steps that have a value: a step without one breaks it, and one alone is a short line.
func (s steps) line(most time.Duration, of func(*delta.Figure) time.Duration) string {
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
		fmt.Fprintf(&path, "%s%g %g H%g", command, round(x), round(y), round(x+width))
		isDrawing = true
	}
	return path.String()
}

func round(x float64) float64 { return float64(int(x*100+0.5)) / 100 }

// took is how long a call took, as exactly as it is known.
func took(d time.Duration) string {
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

// rows are the steps in which an attempt ended, the latest first.
func (s steps) rows() (all []stepRow) {
	for i := len(s.all) - 1; i >= 0; i-- {
		if f := s.all[i]; f != nil {
			by, _ := attemptsOf(f)
			all = append(all, stepRow{s.at(i).Format("02 Jan 15:04"), by, took(f.P50), took(f.P95)})
		}
	}
	return all
}
