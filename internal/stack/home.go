package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/chariot-giving/delta/internal/flock"
)

// ErrLocked is the error for a directory that is in use by another process.
type ErrLocked struct {
	Dir string
	PID int // 0 when unknown
}

func (e *ErrLocked) Error() string {
	if e.PID == 0 {
		return e.Dir + " is in use by another process: stop it first, or use another directory"
	}
	return fmt.Sprintf("%s is in use by process %d: stop it first (kill %d), or use another directory", e.Dir, e.PID, e.PID)
}

// DefaultDir is the directory of a stack that survives restarts: /var/lib/delta for root, because an unprivileged Postgres cannot enter root's home,
// otherwise the user's data directory.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/delta", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "delta"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no directory for data: %w; name one", err)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(user, "Library", "Application Support", "delta"), nil
	}
	return filepath.Join(user, ".local", "share", "delta"), nil
}

// home is the directory of one stack, locked by this process.
type home struct {
	dir       string
	ephemeral bool
	lock      *os.File
}

func (h *home) filePath(name string) string { return filepath.Join(h.dir, name) }
func (h *home) portsFile() string           { return h.filePath("ports.json") }
func (h *home) dataDir() string             { return h.filePath("postgres/data") }

// temporalDatabase returns the path of a server's store. The name has the minor version, because a server does not migrate the SQLite store of
// another version, and would fail on it sooner or later.
func (h *home) temporalDatabase(server string) string {
	return h.filePath("temporal-" + strings.TrimPrefix(semver.MajorMinor("v"+server), "v") + ".db")
}

// openHome creates and locks the directory of a stack.
func openHome(opts Options) (*home, error) {
	if opts.Ephemeral {
		return openEphemeral(opts.Dir)
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	// Use the real path, because Postgres reports its data directory by it.
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755 // Postgres runs as another user, which needs to pass through
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, fmt.Errorf("making the stack's directory: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	lock, err := lockFile(dir, filepath.Join(dir, "delta.lock"))
	if err != nil {
		return nil, err
	}
	return &home{dir: dir, lock: lock}, nil
}

// lockFile opens and locks a file, and writes the pid of this process into it.
func lockFile(dir, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	got, err := flock.Try(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if !got {
		defer func() { _ = f.Close() }()
		return nil, &ErrLocked{Dir: dir, PID: readHolder(path)}
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// readHolder reads the pid of the process that holds a lock. It reads a second time, because the holder writes its pid a moment after it has taken the
// lock.
func readHolder(path string) int {
	for range 20 {
		if b, err := os.ReadFile(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				return pid
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

func ephemeralPattern() string { return fmt.Sprintf("delta-stack-%d-", os.Geteuid()) }

func openEphemeral(parent string) (*home, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil {
		return nil, err
	}
	removeAbandoned(parent)
	dir, err := os.MkdirTemp(parent, ephemeralPattern())
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	// Lock the file before it gets its name. Then no process sees an unlocked delta.lock, and none mistakes a directory in the making for an abandoned
	// one.
	unnamed := filepath.Join(dir, "delta.lock.new")
	lock, err := lockFile(dir, unnamed)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(unnamed, filepath.Join(dir, "delta.lock")); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &home{dir: dir, ephemeral: true, lock: lock}, nil
}

// removeAbandoned removes the directories that killed ephemeral stacks of this user have left.
func removeAbandoned(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, ephemeralPattern()+"*"))
	for _, dir := range left {
		lock := filepath.Join(dir, "delta.lock")
		if !isOwnedByUs(dir) || !isOwnedByUs(lock) {
			continue
		}
		f, err := os.OpenFile(lock, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if got, err := flock.Try(f); err == nil && got {
			h := &home{dir: dir, ephemeral: true, lock: f}
			h.recoverAll(func(string, ...any) {})
			_ = h.close()
			continue
		}
		_ = f.Close()
	}
}

// close unlocks the directory. It removes an ephemeral one before it releases the lock.
func (h *home) close() error {
	var errs []error
	if h.ephemeral {
		errs = append(errs, os.RemoveAll(h.dir))
	}
	errs = append(errs, flock.Release(h.lock))
	return errors.Join(errs...)
}
