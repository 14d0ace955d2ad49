//go:build linux || darwin

package server

import "syscall"

// diskSpace returns the bytes that are free to this process on the file system of a folder, and the size of the file system.
func diskSpace(folder string) (free, size uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, 0, err
	}
	block := uint64(s.Bsize) //nolint:gosec // a size; its type differs between systems
	return s.Bavail * block, s.Blocks * block, nil
}
