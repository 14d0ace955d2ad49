//go:build unix && !linux

package stack

import "syscall"

// processAttributes cannot tell these systems to end the child with this process. The next start does it, by the pid files.
func processAttributes(as *account, _ syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		attr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid, Groups: as.groups}
	}
	return attr
}

// inUse finds nothing without /proc. Postgres itself refuses to start while processes still use the data directory.
func inUse(string) []int { return nil }
