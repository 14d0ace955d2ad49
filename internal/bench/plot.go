package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// svg is a drawing for light and dark backgrounds.
type svg struct {
	strings.Builder
	width, height int
}

const (
	rowHeight  = 26
	labelWidth = 300
	barsWidth  = 420
	margin     = 16
)

func newSVG(title string, width, height int) *svg {
	s := &svg{width: width, height: height}
	s.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label=%q font-family="system-ui, sans-serif" font-size="13">`,
		width, height, html.EscapeString(title))
	s.WriteString(`<style>
text { fill: #1f2328 } .soft { fill: #59636e } .grid { stroke: #d1d9e0 } .one { fill: #0969da } .two { fill: #54aeff } .three { fill: #b6e3ff }
.mark { stroke: #cf222e; stroke-width: 2 } .line { fill: none; stroke: #0969da; stroke-width: 2 } .other { fill: none; stroke: #bc4c00; stroke-width: 2 }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .soft { fill: #9198a1 } .grid { stroke: #3d444d } .one { fill: #4493f8 }
.two { fill: #1f6feb } .three { fill: #0d419d } .line { stroke: #4493f8 } .other { stroke: #db6d28 } .mark { stroke: #f85149 } .paper { fill: #0d1117 } }
</style>
`)
	s.add(`<rect class="paper" width="%d" height="%d"/>`, width, height)
	s.add(`<text x="%d" y="24" font-weight="600">%s</text>`, margin, html.EscapeString(title))
	return s
}

// add writes markup. Writing to a Builder never fails.
func (s *svg) add(format string, args ...any) { _, _ = fmt.Fprintf(s, format+"\n", args...) }

func (s *svg) addText(x, y float64, class, anchor, text string) {
	s.add(`<text x="%.1f" y="%.1f" class=%q text-anchor=%q>%s</text>`, x, y, class, anchor, html.EscapeString(text))
}

func (s *svg) addBar(x, y, width, height float64, class string) {
	s.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class=%q/>`, x, y, max(width, 1), height, class)
}

func (s *svg) addLine(x1, y1, x2, y2 float64, class string) {
	s.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class=%q/>`, x1, y1, x2, y2, class)
}

func (s *svg) finishDrawing() string {
	s.WriteString("</svg>\n")
	return s.String()
}

// plotRates draws the rates as shares of the bare side's, with their targets.
func plotRates(figures []figure) string {
	var rates []figure
	most := 1.0
	for _, f := range figures {
		if !f.hasNoBare() && f.Unit != "ms" {
			rates = append(rates, f)
			most = max(most, f.Ratio)
		}
	}
	most = min(math.Ceil(most*4)/4, 2.5)
	width, height := labelWidth+barsWidth+160, 60+rowHeight*len(rates)+30
	s := newSVG("Delta's rates as shares of the bare thing's; the red marks are targets", width, height)
	x := func(ratio float64) float64 { return labelWidth + min(ratio, most)/most*barsWidth }
	for tick := 0.0; tick <= most+0.001; tick += 0.25 {
		s.addLine(x(tick), 40, x(tick), float64(height-30), "grid")
		s.addText(x(tick), float64(height-12), "soft", "middle", fmt.Sprintf("%.2f", tick))
	}
	for i, f := range rates {
		y := float64(46 + rowHeight*i)
		s.addText(labelWidth-8, y+14, "", "end", f.Name)
		s.addBar(labelWidth, y, x(f.Ratio)-labelWidth, rowHeight-8, "one")
		if f.AtLeast > 0 {
			s.addLine(x(f.AtLeast), y-3, x(f.AtLeast), y+rowHeight-5, "mark")
		}
		s.addText(labelWidth+barsWidth+8, y+14, "soft", "start", fmt.Sprintf("%.2f · %s", f.Ratio, f.formatValue(f.Delta)))
	}
	return s.finishDrawing()
}

// plotLatency draws p50, p95 and p99 of each mode.
func plotLatency(figures []figure) string {
	type way struct {
		name   string
		values [3]float64
	}
	var ways []way
	most := 1.0
	for _, f := range figures {
		for i, p := range []string{", p50", ", p95", ", p99"} {
			name, found := strings.CutSuffix(f.Name, p)
			if !found || !f.hasNoBare() || f.Unit != "ms" {
				continue
			}
			if len(ways) == 0 || ways[len(ways)-1].name != name {
				ways = append(ways, way{name: name})
			}
			ways[len(ways)-1].values[i] = f.Delta
			most = max(most, f.Delta)
		}
	}
	const group = 3*14 + 14
	width, height := labelWidth+barsWidth+120, 60+group*len(ways)+30
	s := newSVG("From Inform to synced, in milliseconds: p50, p95, p99", width, height)
	x := func(v float64) float64 { return labelWidth + v/most*barsWidth }
	for i := range 5 {
		v := most * float64(i) / 4
		s.addLine(x(v), 40, x(v), float64(height-30), "grid")
		s.addText(x(v), float64(height-12), "soft", "middle", fmt.Sprintf("%.0f", v))
	}
	for i, w := range ways {
		y := float64(48 + group*i)
		s.addText(labelWidth-8, y+26, "", "end", w.name)
		for n, class := range []string{"one", "two", "three"} {
			s.addBar(labelWidth, y+float64(14*n), x(w.values[n])-labelWidth, 12, class)
			s.addText(x(w.values[n])+6, y+float64(14*n)+10.5, "soft", "start", fmt.Sprintf("%.0f", w.values[n]))
		}
	}
	return s.finishDrawing()
}

// plotModel draws the time of a first sync in each mode, with logarithmic axes.
func plotModel(m model) string {
	const width, height, left, bottom, top = 760, 360, 90, 50, 44
	s := newSVG("First sync on a machine like this one: time over resources, as the model has it", width, height)
	const least, most = 4.0, 8.0 // 10,000 to 100,000,000
	first, last := math.Log10(1), math.Log10(m.firstSync(1e8, false).Seconds())
	last = math.Ceil(last)
	x := func(n float64) float64 { return left + (math.Log10(n)-least)/(most-least)*(width-left-170) }
	y := func(seconds float64) float64 {
		return float64(height-bottom) - (math.Log10(max(seconds, 1))-first)/(last-first)*float64(height-bottom-top)
	}
	for e := least; e <= most; e++ {
		n := math.Pow(10, e)
		s.addLine(x(n), top, x(n), height-bottom, "grid")
		s.addText(x(n), height-bottom+20, "soft", "middle", formatCount(n))
	}
	for _, tick := range []struct {
		seconds float64
		name    string
	}{{1, "1 s"}, {60, "1 min"}, {3600, "1 h"}, {86400, "1 day"}, {864000, "10 days"}} {
		if math.Log10(tick.seconds) <= last {
			s.addLine(left, y(tick.seconds), x(1e8), y(tick.seconds), "grid")
			s.addText(left-8, y(tick.seconds)+4, "soft", "end", tick.name)
		}
	}
	for _, g := range []struct {
		batches     bool
		class, name string
	}{{true, "line", "batches of 1000"}, {false, "other", "one workflow each"}} {
		var points []string
		for e := least; e <= most+0.01; e += 0.25 {
			n := math.Pow(10, e)
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(n), y(m.firstSync(n, g.batches).Seconds())))
		}
		s.add(`<polyline class=%q points=%q/>`, g.class, strings.Join(points, " "))
		s.addText(x(1e8)+8, y(m.firstSync(1e8, g.batches).Seconds())+4, "", "start", g.name)
	}
	s.addText(left, height-12, "soft", "start", "resources")
	return s.finishDrawing()
}

// formatCount formats a number in a readable unit.
func formatCount(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.0f M", n/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f k", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}
