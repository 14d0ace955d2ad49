//go:build unix

package stack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// checkSystem returns an error if this system cannot run the servers.
func checkSystem() error { return nil }

// account is the unprivileged user that Postgres runs as if this process is root.
type account struct {
	name     string
	uid, gid uint32
	groups   []uint32
}

// postgresAccount chooses the user that runs Postgres: the current one or, because Postgres refuses to run as root, the owner of an existing data
// directory, the user "postgres", or "nobody".
func postgresAccount(dataDir string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(dataDir); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			u, err := user.LookupId(strconv.FormatUint(uint64(stat.Uid), 10))
			if err != nil {
				return nil, fmt.Errorf("the owner of %s is unknown: %w", dataDir, err)
			}
			return lookupAccount(u)
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err == nil {
			return lookupAccount(u)
		}
	}
	return nil, errors.New("Postgres does not run as root, and this system has neither a user \"postgres\" nor \"nobody\" to run it as: add one, or run as another user")
}

func lookupAccount(u *user.User) (*account, error) {
	id := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err
	}
	a := &account{name: u.Username}
	var err error
	if a.uid, err = id(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	if a.gid, err = id(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid} // a system without /etc/group
	}
	for _, g := range groups {
		if n, err := id(g); err == nil {
			a.groups = append(a.groups, n)
		}
	}
	return a, nil
}

// takeOwnership makes the account the owner of path; a nil account changes nothing.
func (a *account) takeOwnership(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// canEnter reports whether the permission bits of dir let the account enter.
func (a *account) canEnter(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	bit := os.FileMode(0o001)
	for _, g := range append(a.groups, a.gid) {
		if g == stat.Gid {
			bit = 0o010
		}
	}
	if a.uid == stat.Uid {
		bit = 0o100
	}
	return info.Mode().Perm()&bit != 0
}

// isOwnedByUs reports whether the current user owns path.
func isOwnedByUs(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// signalProcess sends a signal; a kill goes to the whole process group.
func signalProcess(pid int, signal syscall.Signal) error {
	if signal == syscall.SIGKILL {
		if err := syscall.Kill(-pid, signal); err == nil {
			return nil
		}
	}
	return syscall.Kill(pid, signal)
}

// processExists reports whether the process exists, even as a zombie.
func processExists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// commandLine returns the command line of a live process, or "".
func commandLine(pid int) string {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")
	}
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
