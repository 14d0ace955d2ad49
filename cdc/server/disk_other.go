//go:build !linux && !darwin

package server

// diskSpace does not know: a size of zero is no answer, and nothing is exposed.
func diskSpace(string) (free, size uint64, err error) { return 0, 0, nil }
