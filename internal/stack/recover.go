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

// Steps that end each server. Postgres gets a fast shutdown, which writes a checkpoint, then an immediate one, after which the next start replays the
// log, then a kill. Temporal drains on an interrupt, and SQLite survives a kill.
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
	// killOnly is for servers that keep no data.
	killOnly = []step{killed}
	// killed is the last step. A process cannot ignore it, but may need a while to end on a busy machine.
	killed = step{signal: syscall.SIGKILL, patience: 30 * time.Second, least: 30 * time.Second}
)

// recoverAll stops the servers that a killed run has left in this directory. The caller holds the lock, so no live process owns them.
func (h *home) recoverAll(report func(string, ...any)) {
	_ = h.recoverPostgres(report)
	_ = h.recoverTemporal(report)
}

func (h *home) recoverTemporal(report func(string, ...any)) error {
	return recoverChild("Temporal", h.filePath("temporal.pid"), temporalEnding, report)
}

func (h *home) recoverPostgres(report func(string, ...any)) error {
	if err := recoverChild("Postgres", h.filePath("postgres.pid"), postgresEnding, report); err != nil {
		return err
	}
	// Postgres has its own pid file, which is used if ours is missing.
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
	if processExists(pid) {
		line := commandLine(pid)
		switch {
		case strings.Contains(line, "postgres") && strings.Contains(line, h.dataDir()):
			if err := endLeftover("Postgres", pid, line, postgresEnding, report); err != nil {
				return err
			}
		case line != "":
			// The system has given the pid to another process. Postgres only checks that such a process exists, and would refuse to start.
			report("removing a stale %s: process %d is not our Postgres", path, pid)
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	// The backends of a killed postmaster end a moment after it.
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

// recoverChild stops the process that one of our pid files names, if it is still the one that we started, and removes the file.
func recoverChild(name, pidPath string, ending []step, report func(string, ...any)) error {
	b, err := os.ReadFile(pidPath)
	if err != nil {
		return nil
	}
	var rec record
	// A file that a crash has truncated names no process.
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

// endLeftover ends a process that is not our child. line is its command line, which shows whether it is still the same process.
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
