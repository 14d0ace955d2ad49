//go:build unix

package main

import "syscall"

// freeDisk returns the bytes that are free for this user on the file system of a folder.
func freeDisk(folder string) (int64, error) {
	var s syscall.Statfs_t
	err := syscall.Statfs(folder, &s)
	return int64(s.Bavail) * int64(s.Bsize), err //nolint:unconvert // the types differ between systems
}
