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
	// plainInterval is the time between two lines if the output is no terminal.
	plainInterval = 5 * time.Second
)

// progress shows the progress of a run: as a bar on a terminal, otherwise as lines.
type progress struct {
	w          io.Writer
	isAnimated bool
	width      int
	kind       string
	began      time.Time
	frame      int
	// last is the latest line, lastAt its time, and lastFailure the latest error that was printed.
	last, lastFailure string
	lastAt            time.Time
}

func (c *cli) newProgress(kind string) *progress {
	width := c.width
	if width == 0 {
		width = 80
	}
	return &progress{w: c.err, isAnimated: c.isAnimated, width: width, kind: kind, began: time.Now()}
}

// report shows the present progress.
func (p *progress) report(now delta.InformProgress) {
	if now.LastFailure != "" && now.LastFailure != p.lastFailure {
		p.clear()
		_, _ = fmt.Fprintf(p.w, "A pass failed, and is repeated: %s\n", wording.Line(now.LastFailure))
	}
	p.lastFailure = now.LastFailure
	if p.isAnimated {
		line := truncateText(p.formatBar(now)+"  "+wording.Duration(time.Since(p.began)), p.width-1)
		_, _ = fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, utf8.RuneCountInString(p.last)-utf8.RuneCountInString(line))))
		p.last = line
		p.frame++
		return
	}
	line := p.kind + ": " + formatProgress(now)
	if line == p.last || time.Since(p.lastAt) < plainInterval {
		return
	}
	p.last, p.lastAt = line, time.Now()
	_, _ = fmt.Fprintln(p.w, line)
}

// end removes the bar from the terminal.
func (p *progress) end() { p.clear() }

func (p *progress) clear() {
	if p.isAnimated && p.last != "" {
		_, _ = fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", utf8.RuneCountInString(p.last)))
		p.last = ""
	}
}

// formatBar draws one frame. How many objects there are is not known before the listing ends, so until then a block moves to and fro.
func (p *progress) formatBar(now delta.InformProgress) string {
	if !now.IsSettling || now.Listed == 0 {
		const block = 6
		at := p.frame % (2 * (barWidth - block))
		if at > barWidth-block {
			at = 2*(barWidth-block) - at
		}
		return fmt.Sprintf("%s [%s%s%s] %s", p.kind, strings.Repeat("·", at), strings.Repeat("█", block), strings.Repeat("·", barWidth-block-at), formatProgress(now))
	}
	settled := min(max(now.Listed-now.Unsettled, 0), now.Listed)
	full := barWidth * settled / now.Listed
	return fmt.Sprintf("%s [%s%s] %3d%%  %s", p.kind, strings.Repeat("█", full), strings.Repeat("·", barWidth-full), 100*settled/now.Listed, formatProgress(now))
}

func formatProgress(now delta.InformProgress) string {
	switch {
	case now.IsSettling:
		return fmt.Sprintf("%s of %s settled", wording.Number(now.Listed-now.Unsettled), wording.Number(now.Listed))
	case now.Listed == 0:
		return "listing"
	}
	return fmt.Sprintf("%s listed", wording.Number(now.Listed))
}
