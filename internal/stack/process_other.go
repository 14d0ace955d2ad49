//go:build !unix

package stack

import (
	"errors"
	"syscall"
)

// supported refuses: without process groups, signals and flock this package
// could not keep its promise to leave no process behind.
func supported() error {
	return errors.New("the embedded stack runs on Linux, macOS and other Unix systems: " +
		"here, start Postgres and Temporal yourself (docker compose up) and set " + databaseVariable + " and " + temporalVariable)
}

var errUnsupported = errors.New("not supported on this system")

type account struct{ name string }

func postgresAccount(string) (*account, error) { return nil, errUnsupported }

func (*account) own(string) error { return nil }

func (*account) mayEnter(string) bool { return true }

func ownedByUs(string) bool { return true }

func processAttributes(*account, syscall.Signal) *syscall.SysProcAttr { return nil }

func signalProcess(int, syscall.Signal) error { return errUnsupported }

func exists(int) bool { return false }

func commandLine(int) string { return "" }

func inUse(string) []int { return nil }
