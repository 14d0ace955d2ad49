//go:build !unix

package flock

import (
	"errors"
	"os"
)

func tryLock(*os.File) (bool, error) {
	return false, errors.New("file locks are not supported on this system")
}

func unlock(*os.File) error { return nil }
