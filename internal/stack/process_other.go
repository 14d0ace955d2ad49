//go:build !unix

package stack

import (
	"errors"
	"syscall"
)

// checkSystem returns an error, because without process groups, signals and flock this package
// could not keep its promise to leave no process behind.
func checkSystem() error {
	return errors.New("the embedded stack runs on Linux, macOS and other Unix systems: " +
		"here, start Postgres and Temporal yourself (docker compose up) and set " + databaseVariable + " and " + temporalVariable)
}

var errUnsupported = errors.New("not supported on this system")

type account struct{ name string }

func postgresAccount(string) (*account, error) { return nil, errUnsupported }

func (*account) takeOwnership(string) error { return nil }

func (*account) canEnter(string) bool { return true }

func isOwnedByUs(string) bool { return true }

func processAttributes(*account, syscall.Signal) *syscall.SysProcAttr { return nil }

func signalProcess(int, syscall.Signal) error { return errUnsupported }

func processExists(int) bool { return false }

func commandLine(int) string { return "" }

func inUse(string) []int { return nil }
