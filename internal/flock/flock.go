// Package flock locks files between processes. A lock belongs to the open file, so it ends with its process, however that ends.
package flock

import "os"

// Try tries to take an exclusive lock on f, and reports whether it has it. It never waits.
func Try(f *os.File) (bool, error) { return tryLock(f) }
