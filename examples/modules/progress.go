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
	// plainEvery is the time between lines of progress if the output is no terminal.
	plainEvery = time.Second
)

// screen is the output of the program. On a terminal it rewrites the last line in place; otherwise it prints that line now and then. It is safe for concurrent
// use.
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

// Write writes above the live line, for loggers.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLive()
	n, err := s.out.Write(p)
	s.drawLive()
	return n, err
}

func (s *screen) printf(format string, args ...any) { _, _ = fmt.Fprintf(s, format, args...) }

// setLive replaces the live line; "" removes it.
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
	s.eraseLive()
	s.live = line
	s.drawLive()
}

func (s *screen) eraseLive() {
	if s.width != nil && s.live != "" {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
	}
}

func (s *screen) drawLive() {
	if s.width != nil && s.live != "" {
		// A line of the full width makes some terminals wrap.
		_, _ = io.WriteString(s.out, truncateEnd(s.live, s.width()-1))
	}
}

// progressLine shows the first pass. began is when its first module settled.
func progressLine(s snapshot, began time.Time) string {
	settled, all := s.countSettled(), len(s.rows)
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
		s.countSynced(), s.countOutcomes(outcomePending), s.countOutcomes(outcomeFailed))
	if n := s.countOutcomes(outcomeMissing); n > 0 {
		line += fmt.Sprintf(" · %d missing", n)
	}
	return line + pace
}

// restingLine shows the checks after the first pass.
func restingLine(s snapshot, checks int64) string {
	line := fmt.Sprintf("  %d modules · %d synced", len(s.rows), s.countSynced())
	for _, one := range []outcome{outcomePending, outcomeFailed, outcomeMissing} {
		if n := s.countOutcomes(one); n > 0 {
			line += fmt.Sprintf(" · %d %s", n, one)
		}
	}
	line += " · " + formatCount(int(checks), "check")
	if at, path := s.lastCheck(); path != "" {
		line += fmt.Sprintf(", the last %s ago: %s", max(s.at.Sub(at), 0).Round(time.Second), path)
	}
	return line
}

// truncateEnd shortens s at its end to at most width characters.
func truncateEnd(s string, width int) string {
	if utf8.RuneCountInString(s) <= width || width < 1 {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// truncateMiddle shortens s in its middle to at most width characters, because the ends of a module's path say the most.
func truncateMiddle(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width || width < 3 {
		return truncateEnd(s, width)
	}
	tail := (width - 1) * 2 / 3
	return string(runes[:width-1-tail]) + "…" + string(runes[len(runes)-tail:])
}
