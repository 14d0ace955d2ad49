package stack

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// deathSignals is off in a test that needs a system without them.
var deathSignals = true

func processAttributes(as *account, orphan syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if deathSignals {
		attr.Pdeathsig = orphan
	}
	if as != nil {
		attr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid, Groups: as.groups}
	}
	return attr
}

// inUse lists the processes that have dir as their working directory. Each process of Postgres works in its data directory, so this finds those that
// outlive a killed postmaster for a moment.
func inUse(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd == dir {
			pids = append(pids, pid)
		}
	}
	return pids
}
