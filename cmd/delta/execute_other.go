//go:build !unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
)

// execute runs a program as a child, because a process cannot be replaced here, and ends with its exit code. Ctrl-C reaches both: the child
// decides when to end. It returns only if the program cannot be started.
func execute(program string, args []string) error {
	signal.Ignore(os.Interrupt)
	child := exec.Command(program, args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := child.Run()
	if exit := (*exec.ExitError)(nil); err == nil || errors.As(err, &exit) {
		os.Exit(child.ProcessState.ExitCode())
	}
	return err
}
