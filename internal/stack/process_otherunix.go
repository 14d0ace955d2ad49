//go:build unix && !linux

package stack

import "syscall"

// processAttributes cannot ask these systems to end the child with us; the
// pid files let the next start do it.
func processAttributes(as *account, _ syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		attr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid, Groups: as.groups}
	}
	return attr
}

// inUse cannot tell without /proc; Postgres itself then refuses to start over
// processes that still use the data directory.
func inUse(string) []int { return nil }
