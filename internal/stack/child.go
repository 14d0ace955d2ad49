package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// step is one way to ask a process to end, and how long to wait for it.
type step struct {
	signal   syscall.Signal
	patience time.Duration
	least    time.Duration // waited even if the context has ended
}

// spec describes a process to start.
type spec struct {
	name    string // for people: "Postgres"
	path    string
	args    []string
	dir     string
	env     []string
	logPath string
	pidPath string         // empty: no record
	as      *account       // nil: as ourselves
	orphan  syscall.Signal // sent by Linux when this process dies
	ending  []step
}

// child is a process that this package has started.
type child struct {
	spec
	pid      int
	logStart int64
	stopping atomic.Bool
	done     chan struct{} // closed when the process has been reaped
	exit     error         // valid after done
}

// startChild starts the process; its output goes to the end of its log.
func startChild(sp spec) (*child, error) {
	log, offset, err := openLog(sp.logPath)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(sp.path, sp.args...)
	cmd.Dir, cmd.Env = sp.dir, sp.env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processAttributes(sp.as, sp.orphan)
	c := &child{spec: sp, logStart: offset, done: make(chan struct{})}

	started := make(chan error, 1)
	go func() {
		// Linux sends the parent-death signal when the thread that forked ends, not when the process does. So this goroutine keeps its thread until
		// the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		c.pid = cmd.Process.Pid
		if err := c.writeRecord(); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			started <- err
			return
		}
		started <- nil
		c.exit = cmd.Wait()
		if sp.pidPath != "" {
			_ = os.Remove(sp.pidPath)
		}
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", sp.name, err)
	}
	return c, nil
}

// record is the content of a pid file: enough to recognise the process later.
type record struct {
	PID     int      `json:"pid"`
	Command []string `json:"command"`
}

func (c *child) writeRecord() error {
	if c.pidPath == "" {
		return nil
	}
	b, err := json.Marshal(record{PID: c.pid, Command: append([]string{c.path}, c.args...)})
	if err != nil {
		return err
	}
	return os.WriteFile(c.pidPath, b, 0o644)
}

func (c *child) isAlive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// wait returns when the process has ended. It kills the process if ctx ends first.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.stop(ctx))
	}
	if c.exit != nil {
		return c.describeEnd()
	}
	return nil
}

// stop ends the process with increasingly forceful steps.
func (c *child) stop(ctx context.Context) error {
	c.stopping.Store(true)
	for _, st := range c.ending {
		if !c.isAlive() {
			return nil
		}
		if err := signalProcess(c.pid, st.signal); err != nil && c.isAlive() {
			return fmt.Errorf("stopping %s (pid %d): %w", c.name, c.pid, err)
		}
		c.awaitEnd(ctx, st)
	}
	if c.isAlive() {
		return fmt.Errorf("%s (pid %d) did not end when killed", c.name, c.pid)
	}
	return nil
}

func (c *child) awaitEnd(ctx context.Context, st step) {
	patience := time.NewTimer(st.patience)
	defer patience.Stop()
	select {
	case <-c.done:
		return
	case <-patience.C:
		return
	case <-ctx.Done():
	}
	least := time.NewTimer(st.least)
	defer least.Stop()
	select {
	case <-c.done:
	case <-least.C:
	}
}

// describeEnd returns an error with the exit of the process and its last lines of output.
func (c *child) describeEnd() error {
	end := "exit status 0"
	if c.exit != nil {
		end = c.exit.Error()
	}
	return fmt.Errorf("%s; the end of its log %s:\n%s", end, c.logPath, c.lastLines(12))
}

// lastLines returns the last lines that the process has written since this start.
func (c *child) lastLines(lines int) string {
	written := strings.TrimSpace(c.readOutput())
	if written == "" {
		return "\t(nothing)"
	}
	all := strings.Split(written, "\n")
	all = all[max(0, len(all)-lines):]
	return "\t" + strings.Join(all, "\n\t")
}

// readOutput returns the output of the process since this start, at most the last 64 KiB.
func (c *child) readOutput() string {
	f, err := os.Open(c.logPath)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	from := c.logStart
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-64<<10)
	}
	b, _ := io.ReadAll(io.NewSectionReader(f, from, 64<<10))
	return string(b)
}

const maxLog = 8 << 20

// openLog opens a log for appending. A long log is renamed first.
func openLog(path string) (log *os.File, size int64, err error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
