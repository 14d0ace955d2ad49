package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	maxWidth = 100
	barWidth = 20
	// plainEvery is how often progress is written where it cannot be rewritten.
	plainEvery = time.Second
)

// screen is where everything is written. On a terminal its last line can be rewritten in place; elsewhere that line is
// written out now and then. It is safe for concurrent use.
type screen struct {
	out   io.Writer
	width func() int // of the terminal; nil if it is none
	mu    sync.Mutex
	live  string
	wrote time.Time
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.width = func() int {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
				return min(width, maxWidth)
			}
			return maxWidth
		}
	}
	return s
}

// Write writes above the live line: it is what loggers are given.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	n, err := s.out.Write(p)
	s.draw()
	return n, err
}

func (s *screen) printf(format string, args ...any) { _, _ = fmt.Fprintf(s, format, args...) }

// setLive replaces the live line; an empty one removes it.
func (s *screen) setLive(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.width == nil {
		if line != s.live && time.Since(s.wrote) >= plainEvery {
			s.live, s.wrote = line, time.Now()
			if line != "" {
				_, _ = fmt.Fprintln(s.out, line)
			}
		}
		return
	}
	s.erase()
	s.live = line
	s.draw()
}

func (s *screen) erase() {
	if s.width != nil && s.live != "" {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
	}
}

func (s *screen) draw() {
	if s.width != nil && s.live != "" {
		// A line of the full width makes some terminals wrap.
		_, _ = io.WriteString(s.out, cut(s.live, s.width()-1))
	}
}

// progressLine shows a first pass. began is when its first module settled.
func progressLine(s snapshot, began time.Time) string {
	settled, all := s.settled(), len(s.rows)
	pace := ""
	if passed := s.at.Sub(began); !began.IsZero() && passed >= time.Second {
		pace = fmt.Sprintf(" · %.1f/s", float64(settled)/passed.Seconds())
	}
	full := barWidth
	if all > 0 {
		full = settled * barWidth / all
	}
	line := fmt.Sprintf("  %s%s %d/%d · %d synced · %d pending · %d failed",
		strings.Repeat("█", full), strings.Repeat("░", barWidth-full), settled, all,
		s.synced(), s.count(outcomePending), s.count(outcomeFailed))
	if n := s.count(outcomeMissing); n > 0 {
		line += fmt.Sprintf(" · %d missing", n)
	}
	return line + pace
}

// restingLine shows what goes on after the first pass.
func restingLine(s snapshot, checks int64) string {
	line := fmt.Sprintf("  %d modules · %d synced", len(s.rows), s.synced())
	for _, one := range []outcome{outcomePending, outcomeFailed, outcomeMissing} {
		if n := s.count(one); n > 0 {
			line += fmt.Sprintf(" · %d %s", n, one)
		}
	}
	line += " · " + plural(int(checks), "check")
	if at, path := s.lastCheck(); path != "" {
		line += fmt.Sprintf(", the last %s ago: %s", max(s.at.Sub(at), 0).Round(time.Second), path)
	}
	return line
}

// cut shortens s at its end to at most width characters.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width || width < 1 {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// squeeze shortens s in its middle to at most width characters: the ends of a module's path tell the most.
func squeeze(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width || width < 3 {
		return cut(s, width)
	}
	tail := (width - 1) * 2 / 3
	return string(runes[:width-1-tail]) + "…" + string(runes[len(runes)-tail:])
}
