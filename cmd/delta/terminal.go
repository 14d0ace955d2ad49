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

// streams has the input and the outputs of the command.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// width is the width of the terminal; 0 if out is no terminal.
	width int
	// isInteractive reports whether a person can be asked, and isAnimated whether err is a terminal that can redraw lines.
	isInteractive, isAnimated bool
}

// processStreams returns the streams of the process.
func processStreams() streams {
	s := streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	is := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	s.isInteractive = is(os.Stdin) && is(os.Stderr)
	s.isAnimated = is(os.Stderr) && os.Getenv("TERM") != "dumb"
	if is(os.Stdout) {
		s.width = 80
		if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
			s.width = width
		}
	}
	return s
}

// printNote writes text to standard error, wrapped on a terminal.
func (s streams) printNote(text string) {
	for paragraph := range strings.Lines(text) {
		for _, line := range wrapText(strings.TrimRight(paragraph, "\n"), s.width) {
			_, _ = fmt.Fprintln(s.err, line)
		}
	}
}

// askToConfirm asks before a command that cannot easily be undone. It returns nil if the answer is yes.
func (s streams) askToConfirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !s.isInteractive {
		return &usageError{errors.New("there is no terminal to ask on: use --yes")}
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
		return markFailure(asInterrupted(ctx, ctx.Err()))
	case answer := <-answers:
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		}
		return markFailure(errors.New("nothing was done"))
	}
}
