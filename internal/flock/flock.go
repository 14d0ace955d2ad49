// Package flock locks files between processes. A lock belongs to the open file, so it ends with its process, however that ends.
package flock

import (
	"errors"
	"os"
)

// Try tries to take an exclusive lock on f, and reports whether it has it. It never waits.
func Try(f *os.File) (bool, error) { return tryLock(f) }

// Release gives up the lock that Try took and closes f. Closing alone is not enough: a process that is being started has f open, too, until it
// executes its program.
func Release(f *os.File) error { return errors.Join(unlock(f), f.Close()) }
