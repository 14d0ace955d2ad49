//go:build !unix

package main

import "errors"

// freeDisk is not implemented for this system, because the measured servers do not run on it either.
func freeDisk(string) (int64, error) { return 0, errors.New("not supported on this system") }
