package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
)

const (
	barWidth = 24
	// plainEvery is how often there is a line where nothing can be redrawn.
	plainEvery = 5 * time.Second
)

// progress shows how far a run is: a bar on a terminal, lines otherwise.
type progress struct {
	w        io.Writer
	animated bool
	width    int
	kind     string
	began    time.Time
	frame    int
	// last is the line shown last, lastAt when, and lastFailure the error that
	// was said last.
	last, lastFailure string
	lastAt            time.Time
}

func (c *cli) newProgress(kind string) *progress {
	width := c.width
	if width == 0 {
		width = 80
	}
	return &progress{w: c.err, animated: c.animated, width: width, kind: kind, began: time.Now()}
}

// report shows how far the run is now.
func (p *progress) report(now delta.InformProgress) {
	if now.LastFailure != "" && now.LastFailure != p.lastFailure {
		p.clear()
		_, _ = fmt.Fprintf(p.w, "A try failed, and is repeated: %s\n", wording.Line(now.LastFailure))
	}
	p.lastFailure = now.LastFailure
	if p.animated {
		line := cut(p.bar(now)+"  "+wording.Duration(time.Since(p.began)), p.width-1)
		_, _ = fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, utf8.RuneCountInString(p.last)-utf8.RuneCountInString(line))))
		p.last = line
		p.frame++
		return
	}
	line := p.kind + ": " + words(now)
	if line == p.last || time.Since(p.lastAt) < plainEvery {
		return
	}
	p.last, p.lastAt = line, time.Now()
	_, _ = fmt.Fprintln(p.w, line)
}

// end leaves the terminal as it was.
func (p *progress) end() { p.clear() }

func (p *progress) clear() {
	if p.animated && p.last != "" {
		_, _ = fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", utf8.RuneCountInString(p.last)))
		p.last = ""
	}
}

// bar is one frame. How much there is to list is not known before its end, so
// until then something only moves.
func (p *progress) bar(now delta.InformProgress) string {
	if !now.Settling || now.Listed == 0 {
		const block = 6
		at := p.frame % (2 * (barWidth - block))
		if at > barWidth-block {
			at = 2*(barWidth-block) - at
		}
		return fmt.Sprintf("%s [%s%s%s] %s", p.kind, strings.Repeat("·", at), strings.Repeat("█", block), strings.Repeat("·", barWidth-block-at), words(now))
	}
	settled := min(max(now.Listed-now.Unsettled, 0), now.Listed)
	full := barWidth * settled / now.Listed
	return fmt.Sprintf("%s [%s%s] %3d%%  %s", p.kind, strings.Repeat("█", full), strings.Repeat("·", barWidth-full), 100*settled/now.Listed, words(now))
}

func words(now delta.InformProgress) string {
	switch {
	case now.Settling:
		return fmt.Sprintf("%s of %s settled", wording.Number(now.Listed-now.Unsettled), wording.Number(now.Listed))
	case now.Listed == 0:
		return "listing"
	}
	return fmt.Sprintf("%s listed", wording.Number(now.Listed))
}
