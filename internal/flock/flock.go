// Package flock locks files between processes. A lock belongs to the open
// file and so ends with the process that holds it, however that one ends.
package flock

import "os"

// Try takes an exclusive lock on f and tells whether it got it. It never waits.
func Try(f *os.File) (bool, error) { return try(f) }
