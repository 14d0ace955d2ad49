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

// Exit codes, as the help of the root has them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitState       = 4
	exitUnreachable = 5
	exitInterrupted = 130
)

// failure marks the error of a command that was used rightly. All others come
// from cobra, before a command runs, or say that it was used wrongly.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

func fail(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

func isFailure(err error) bool {
	var f *failure
	return errors.As(err, &f)
}

// unreachableError is that of a server that does not answer.
type unreachableError struct {
	server string
	err    error
}

// Error has each line of the cause once: pgx tries again without TLS, and
// reports both.
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

// errInterrupted is the cause of the end of a context by Ctrl-C.
var errInterrupted = errors.New("interrupted")

// usageError is found out later than the others of wrong usage.
type usageError struct{ error }

// silence is an exit code whose reason has been said already.
type silence struct{ code int }

func (*silence) Error() string { return "" }

// codeOf is the exit code of an error.
func codeOf(err error) int {
	var silent *silence
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

// flagOf has the flags that set what the library has another name for.
var flagOf = map[string]string{
	"States": "--state", "Limit": "--limit", "Config.WorkflowIDPrefix": "--prefix", "Config.TaskQueue": "--task-queue",
	"Config.CountResourcesInterval": "--count-every",
}

// message is an error as a person reads it.
func message(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "delta: "), "messagedb: ")
	if input := (*delta.InputError)(nil); errors.As(err, &input) {
		if flag, ok := flagOf[input.Field]; ok {
			named := *input
			named.Field = flag
			text = strings.Replace(text, input.Error(), named.Error(), 1)
		}
	}
	if app := (*temporal.ApplicationError)(nil); errors.As(err, &app) {
		text = app.Message() // without Temporal's words around it
	}
	// Some of it comes from outside, and may end on a terminal.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return ' '
		}
		return r
	}, text)
}

// interrupted tells a Ctrl-C from other ends of a context.
func interrupted(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return errInterrupted
	}
	return err
}
