//go:build unix

package main

import (
	"os"
	"syscall"
)

// execute runs a program in place of this process, so that signals and the exit code are those of the program, and a kill of this process does
// not leave the program behind. It returns only if that fails.
func execute(program string, args []string) error {
	return syscall.Exec(program, args, os.Environ())
}
