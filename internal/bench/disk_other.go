//go:build !unix

package main

import "errors"

// freeDisk is not known here. The servers that are measured do not run on such a system either.
func freeDisk(string) (int64, error) { return 0, errors.New("this system does not say it") }
