package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/messagedb"
)

// Exit codes, as documented in the help of the root command.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitState       = 4
	exitUnreachable = 5
	exitInterrupted = 130
)

// failure marks an error that is not a usage error. All other errors are: they come from cobra, or from the check of flags.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

func markFailure(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

func isFailure(err error) bool {
	var f *failure
	return errors.As(err, &f)
}

// unreachableError is the error of a server that does not answer.
type unreachableError struct {
	server string
	err    error
}

// Error has each line of the cause once, because pgx tries again without TLS and reports both attempts.
func (e *unreachableError) Error() string {
	var causes []string
	for line := range strings.Lines(e.err.Error()) {
		if line = strings.TrimSpace(line); !slices.Contains(causes, line) {
			causes = append(causes, line)
		}
	}
	return e.server + " cannot be reached: " + strings.Join(causes, " ")
}

func (e *unreachableError) Unwrap() error { return e.err }

// errInterrupted is the cause of a context that Ctrl-C or SIGTERM has cancelled.
var errInterrupted = errors.New("interrupted")

// usageError is a usage error that is found only after the command has begun.
type usageError struct{ error }

// silentExit is an exit code after the error has been printed.
type silentExit struct{ code int }

func (*silentExit) Error() string { return "" }

// exitCodeOf returns the exit code of an error.
func exitCodeOf(err error) int {
	var silent *silentExit
	var input *delta.InputError
	var state *delta.StateError
	var usage *usageError
	var unreachable *unreachableError
	var badInput *messagedb.InvalidError
	var noStore *messagedb.NotInstalledError
	switch {
	case errors.As(err, &silent):
		return silent.code
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case !isFailure(err), errors.As(err, &input), errors.As(err, &badInput), errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, delta.ErrNotFound), errors.Is(err, delta.ErrNotWithheld):
		return exitNotFound
	case errors.As(err, &state):
		return exitState
	case errors.As(err, &unreachable), errors.As(err, &noStore), errors.Is(err, delta.ErrNoSchema):
		return exitUnreachable
	}
	return exitFailure
}

// flagsByField maps the library's names of fields to the flags that set them.
var flagsByField = map[string]string{
	"States": "--state", "Limit": "--limit", "Config.WorkflowIDPrefix": "--prefix", "Config.TaskQueue": "--task-queue",
	"Config.CountResourcesInterval": "--count-every",
}

// formatError formats an error for a person.
func formatError(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "delta: "), "messagedb: ")
	if input := (*delta.InputError)(nil); errors.As(err, &input) {
		if flag, ok := flagsByField[input.Field]; ok {
			named := *input
			named.Field = flag
			text = strings.Replace(text, input.Error(), named.Error(), 1)
		}
	}
	if app := (*temporal.ApplicationError)(nil); errors.As(err, &app) {
		text = app.Message() // without Temporal's words around it
	}
	// Some of the text comes from outside. Control characters in it must not reach the terminal.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return ' '
		}
		return r
	}, text)
}

// asInterrupted returns errInterrupted instead of err if a signal has ended the context.
func asInterrupted(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return errInterrupted
	}
	return err
}
