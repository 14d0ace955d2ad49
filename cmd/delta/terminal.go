package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// streams are what the command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// width is that of the terminal that out is, 0 if it is none.
	width int
	// asks tells that a person can be asked, and animated that err is a terminal.
	asks, animated bool
}

// terminal are the streams of the process.
func terminal() streams {
	s := streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	is := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	s.asks = is(os.Stdin) && is(os.Stderr)
	s.animated = is(os.Stderr) && os.Getenv("TERM") != "dumb"
	if is(os.Stdout) {
		s.width = 80
		if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
			s.width = width
		}
	}
	return s
}

// tell writes text to standard error, broken into lines on a terminal.
func (s streams) tell(text string) {
	for paragraph := range strings.Lines(text) {
		for _, line := range wrap(strings.TrimRight(paragraph, "\n"), s.width) {
			_, _ = fmt.Fprintln(s.err, line)
		}
	}
}

// confirm asks before something that is not easily undone.
func (s streams) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !s.asks {
		return &usageError{errors.New("there is no terminal to ask on: give --yes")}
	}
	_, _ = fmt.Fprintf(s.err, "%s [y/N] ", question)
	answers := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(s.in).ReadString('\n')
		answers <- line
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(s.err)
		return fail(interrupted(ctx, ctx.Err()))
	case answer := <-answers:
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		}
		return fail(errors.New("nothing was done"))
	}
}
