package stack

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How each server is ended. Postgres: a fast shutdown, which writes a
// checkpoint; an immediate one, after which the next start replays the log;
// and the kill. Temporal drains on an interrupt; SQLite survives a kill.
var (
	postgresEnding = []step{
		{signal: syscall.SIGINT, patience: 15 * time.Second},
		{signal: syscall.SIGQUIT, patience: 5 * time.Second, least: 2 * time.Second},
		killed,
	}
	temporalEnding = []step{
		{signal: syscall.SIGINT, patience: 8 * time.Second},
		killed,
	}
	// killOnly is for what keeps nothing anyway.
	killOnly = []step{killed}
	// killed is the last step. A process cannot refuse it, but may need a while to be gone where the machine has much to do.
	killed = step{signal: syscall.SIGKILL, patience: 30 * time.Second, least: 30 * time.Second}
)

// recoverAll stops the servers that a killed run left in this directory. The
// caller holds the lock, so no living delta owns them.
func (h *home) recoverAll(report func(string, ...any)) {
	_ = h.recoverPostgres(report)
	_ = h.recoverTemporal(report)
}

func (h *home) recoverTemporal(report func(string, ...any)) error {
	return recoverChild("Temporal", h.path("temporal.pid"), temporalEnding, report)
}

func (h *home) recoverPostgres(report func(string, ...any)) error {
	if err := recoverChild("Postgres", h.path("postgres.pid"), postgresEnding, report); err != nil {
		return err
	}
	// Postgres keeps a pid file of its own. It counts when ours is missing.
	path := filepath.Join(h.dataDir(), "postmaster.pid")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil // a clean shutdown removes it
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s is not a Postgres pid file: if no Postgres runs on this directory, remove it", path)
	}
	if exists(pid) {
		line := commandLine(pid)
		switch {
		case strings.Contains(line, "postgres") && strings.Contains(line, h.dataDir()):
			if err := endLeftover("Postgres", pid, line, postgresEnding, report); err != nil {
				return err
			}
		case line != "":
			// The system gave the number to another process. Postgres, which
			// only looks whether it exists, would refuse to start.
			report("removing a stale %s: process %d is not our Postgres", path, pid)
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	// The backends of a postmaster that was killed end a moment after it.
	deadline := time.Now().Add(killed.patience)
	for {
		left := inUse(h.dataDir())
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v still use %s: end them (kill -QUIT) and start again", left, h.dataDir())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// recoverChild stops the process that a pid file of ours names, if it is still
// the one we started, and removes the file.
func recoverChild(name, pidPath string, ending []step, report func(string, ...any)) error {
	b, err := os.ReadFile(pidPath)
	if err != nil {
		return nil
	}
	var rec record
	// A file that was cut short by a crash names nobody.
	if json.Unmarshal(b, &rec) == nil && rec.PID > 1 && len(rec.Command) > 0 {
		line := strings.TrimSpace(strings.Join(rec.Command, " "))
		if commandLine(rec.PID) == line {
			if err := endLeftover(name, rec.PID, line, ending, report); err != nil {
				return err
			}
		}
	}
	return os.Remove(pidPath)
}

// endLeftover ends a process that is not our child; line is its command line,
// by which we see that it is still the same one.
func endLeftover(name string, pid int, line string, ending []step, report func(string, ...any)) error {
	report("stopping a %s (pid %d) that an earlier run left", name, pid)
	for _, st := range ending {
		if commandLine(pid) != line {
			return nil
		}
		if err := signalProcess(pid, st.signal); err != nil {
			return fmt.Errorf("a %s of an earlier run (pid %d) could not be stopped: %w; stop it and start again", name, pid, err)
		}
		for deadline := time.Now().Add(st.patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if commandLine(pid) != line {
				return nil
			}
		}
	}
	return fmt.Errorf("a %s of an earlier run (pid %d) does not end: stop it and start again", name, pid)
}
